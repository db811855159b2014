import json

import numpy as np
import pytest

from loadtest.benchmarks import kernel
from loadtest.benchmarks.kernel import BLOCK, HALF, SKIP_RATES, Shape, measure, render

SMALL = (Shape("linear", 32, 48, 4, 0), Shape("convolution", 16, 24, 5, 3))


@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
def test_every_variant_is_timed(shape):
    measured = measure(shape, repeats=2)
    times = [*measured.seconds.values(), measured.blocks_seconds, measured.in_order_seconds]
    times += [measured.torch_seconds, measured.torch_packed_seconds]
    assert len(times) == len(SKIP_RATES) + 4
    assert all(0 < seconds < 1 for seconds in times)
    assert measured.dense_macs == 48 * 32 * 4 if shape.kernel == 0 else 24 * 16 * 9 * 25
    assert render([measured]).row_count == 1


@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
def test_torch_computes_the_same_either_way(shape):
    random = np.random.default_rng(0)
    weight = random.standard_normal((shape.outputs, shape.inputs, *[shape.kernel] * 2)[: 4 if shape.kernel else 2])
    layers = kernel._torch_layers(shape, weight.astype(np.float32), random)
    np.testing.assert_allclose(layers.packed(), layers.eager(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_other_datatypes_are_timed_beside_their_own_kind(datatype, monkeypatch, capsys):
    monkeypatch.setattr(kernel, "SHAPES", SMALL)
    shapes = kernel.run(repeats=1, json=True, datatype=datatype)["shapes"]
    assert len(shapes) == (2 if datatype == "bf16" else 1)
    for shape in shapes:
        assert shape["torch_seconds"] > 0
        assert (shape["torch_packed_seconds"] is None) == (datatype == "int8")


def test_channels_in_order_are_the_first(capsys):
    inputs, outputs = kernel._in_order(SMALL[0])
    assert inputs.tolist() == list(range(round(32 * HALF)))
    assert outputs.tolist() == list(range(round(48 * HALF)))


def test_the_report_can_be_read_by_a_program(monkeypatch, capsys):
    monkeypatch.setattr(kernel, "SHAPES", SMALL)
    result = kernel.run(repeats=1, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [shape["shape"] for shape in printed["shapes"]] == [shape.name for shape in SMALL]
    assert result["repeats"] == printed["repeats"] == 1


def test_half_by_blocks_cuts_one_block_at_most():
    shape = Shape("wide", 100, 5 * BLOCK + 10, 4, 0)
    inputs, outputs = kernel._blocks_at_random(shape, np.random.default_rng(1))
    assert (len(inputs), len(outputs)) == (50, (5 * BLOCK + 10) // 2)
    counts = np.bincount(outputs // BLOCK)
    assert sum(0 < count < min(BLOCK, shape.outputs - BLOCK * block) for block, count in enumerate(counts)) <= 1
    assert (np.diff(outputs) > 0).all()
