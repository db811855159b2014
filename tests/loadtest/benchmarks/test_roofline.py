import json

import numpy as np
import pytest

from loadtest.benchmarks import roofline
from models import kernels

pytestmark = pytest.mark.skipif(kernels.BACKEND != "native", reason="nothing to measure without compiled kernels")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "cache_sizes", lambda: {1: 1 << 14, 2: 1 << 16})
    monkeypatch.setattr(roofline, "INPUTS", 256)
    monkeypatch.setattr(roofline, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(roofline, "LEAST_READ", 1 << 18)


@pytest.mark.parametrize("datatype", roofline.DATATYPES)
def test_the_report_can_be_read_by_a_program(small, capsys, datatype):
    result = roofline.run(datatype, repeats=1, json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["products"] == result["products"]
    assert all(gflops > 0 for gflops in printed["gflops"].values())
    assert list(printed["bandwidth"]) == ["cache 1", "cache 2", "memory"]
    coarse = 17 / 32 / roofline.ITEM_BYTES[datatype]
    shares = {
        "rows by inputs": [1, 0.5, 0.5, round(coarse, 2), round(coarse + 1 / 16, 2)],
        "rows by outputs": [1, 0.5, 0.5],
        "blocks": [1, 0.5, 0.5, 0.5, 0.25],
    }
    for layout, wanted in shares.items():
        dense, *others = [product for product in printed["products"] if product["layout"] == layout]
        assert dense["of_dense"] == 1
        assert dense["bytes"] >= (1 << 16) * roofline.BEYOND_CACHE
        assert [round(each["bytes"] / dense["bytes"], 2) for each in (dense, *others)] == wanted
        assert all(each["of_dense"] == pytest.approx(each["seconds"] / dense["seconds"]) for each in others)


def test_tables_name_what_was_measured(small, capsys):
    roofline.run(repeats=1)
    printed = capsys.readouterr().out
    assert "One core at most" in printed
    assert "half of the inputs, at random" in printed


def test_wider_numbers_take_more_memory():
    assert roofline.matrix_shape(1 << 21, "fp32") == (128, 4096)
    assert roofline.matrix_shape((1 << 21) + 1, "fp32") == (256, 4096)
    assert roofline.matrix_shape(1 << 21, "int8") == (512, 4096)


def test_caches_are_read_from_the_system(tmp_path):
    caches = [(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2048K")]
    for index, (level, kind, size) in enumerate(caches):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, content in (("level", str(level)), ("type", kind), ("size", size)):
            (folder / name).write_text(content + "\n")
    assert roofline.cache_sizes(tmp_path) == {1: 48 << 10, 2: 2048 << 10}
    assert roofline.cache_sizes(tmp_path / "none") == roofline.USUAL_CACHES


def test_reading_reads_everything():
    from models.kernels import _core

    values = np.random.default_rng(0).integers(0, 9, 1037).astype(np.float32)
    for count in (0, 1, 127, 128, 1037):
        assert _core.read(values[:count].copy(), 2) == 2 * values[:count].sum()


def test_rounds_are_counted():
    from models.kernels import _core

    for datatype in roofline.DATATYPES:
        assert _core.accumulate(6, datatype) == 6 * _core.accumulate(1, datatype) > 0
