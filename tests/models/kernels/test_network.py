"""A network of gated convolutions in one call: the same numbers as its layers called one after another."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference

both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def random_layers(backend, seed, sizes, evidence, datatype="fp32", kernel=3, stride=1):
    """Layers of `sizes` channels, the first of them the image's; every second one with a pool."""
    random = np.random.default_rng(seed)
    parts, packed = [], []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = random.normal(0, (2 / (inputs * kernel**2)) ** 0.5, (outputs, inputs, kernel, kernel))
        predictor = random.normal(0, 0.3, (inputs + evidence, outputs)).astype(np.float32)
        offset = random.uniform(-0.5, 1.5, outputs).astype(np.float32)
        packed.append(backend.pack_convolution(weight.astype(np.float32), stride, kernel // 2, datatype))
        parts.append((predictor, offset, number % 2 == 1))
    return packed, parts


def random_call(seed, sizes, evidence, size):
    random = np.random.default_rng(seed + 1)
    outputs = sum(sizes[1:])
    return {
        "x": random.normal(0.5, 1, (size, size, sizes[0])).astype(np.float32),
        "evidence": random.uniform(0, 1, evidence).astype(np.float32),
        "thresholds": random.uniform(-0.5, 1.2, len(sizes) - 1).astype(np.float32),
        "scales": random.uniform(0.5, 1.5, outputs).astype(np.float32),
        "shifts": random.normal(0, 0.3, outputs).astype(np.float32),
    }


def network_of(backend, packed, parts):
    return backend.gated_network(
        [
            backend.gated_layer(layer, predictor, offset, pool=pool)
            for layer, (predictor, offset, pool) in zip(packed, parts, strict=True)
        ]
    )


def one_after_another(packed, parts, x, evidence, thresholds, scales, shifts):
    inputs, chosen, first = None, [], 0
    for layer, (predictor, offset, pool), threshold in zip(packed, parts, thresholds, strict=True):
        features = kernels.squeeze_channels(x, layer.inputs, evidence, inputs=inputs)
        inputs, multipliers = kernels.gate_channels(features, predictor, offset, float(threshold))
        x = kernels.gated_conv2d(
            x,
            layer,
            inputs=chosen[-1] if chosen else None,
            outputs=inputs,
            scale=scales[first : first + layer.outputs],
            shift=shifts[first : first + layer.outputs],
            activation="relu",
            saliency=multipliers,
        )
        x = kernels.max_pool2x2(x) if pool else x
        chosen.append(inputs)
        first += layer.outputs
    return kernels.channel_means(x), chosen


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 90), min_size=2, max_size=5),
    evidence=st.integers(0, 9),
    size=st.integers(8, 13),
    datatype=st.sampled_from(["fp32", "bf16"]),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
)
def test_one_call_gives_the_bits_of_many(seed, sizes, evidence, size, datatype, kernel, stride):
    if stride == 2:
        sizes, size = sizes[:3], 2 * size
    packed, parts = random_layers(kernels, seed, sizes, evidence, datatype, kernel, stride)
    call = random_call(seed, sizes, evidence, size)
    means, chosen = kernels.run_gated_network(network_of(kernels, packed, parts), **call)
    wanted, active = one_after_another(packed, parts, **call)
    assert [channels.tolist() for channels in chosen] == [channels.tolist() for channels in active]
    np.testing.assert_array_equal(means, wanted)


def test_it_equals_the_reference():
    sizes, evidence = (1, 30, 70, 44), 6
    call = random_call(3, sizes, evidence, 12)
    means, chosen = kernels.run_gated_network(network_of(kernels, *random_layers(kernels, 3, sizes, evidence)), **call)
    wanted, active = reference.run_gated_network(
        network_of(reference, *random_layers(reference, 3, sizes, evidence)), **call
    )
    assert [channels.tolist() for channels in chosen] == [channels.tolist() for channels in active]
    assert all(0 < len(channels) < size for channels, size in zip(chosen, sizes[1:], strict=True))
    np.testing.assert_allclose(means, wanted, rtol=1e-4, atol=1e-5)


def test_what_it_gave_outlives_the_next_call():
    sizes, evidence = (3, 20, 30), 4
    network = network_of(kernels, *random_layers(kernels, 0, sizes, evidence))
    first = random_call(0, sizes, evidence, 9)
    means, chosen = kernels.run_gated_network(network, **first)
    kept = means.copy(), [channels.copy() for channels in chosen]
    for seed in range(1, 5):
        kernels.run_gated_network(network, **random_call(seed, sizes, evidence, 9))
    assert np.array_equal(means, kept[0])
    assert all(np.array_equal(now, then) for now, then in zip(chosen, kept[1], strict=True))


WRONG = [
    ({"x": np.zeros((9, 9, 2), np.float32)}, ValueError, "x must have 3 channels, not 2"),
    ({"x": np.zeros((9, 9, 3))}, TypeError, "x must be float32"),
    ({"x": np.zeros((1, 9, 3), np.float32)}, ValueError, "x must be at least 2x2"),
    ({"x": np.zeros((0, 9, 3), np.float32)}, ValueError, "x must"),
    ({"evidence": np.zeros(5, np.float32)}, ValueError, "evidence must have"),
    ({"thresholds": np.zeros(3, np.float32)}, ValueError, "thresholds must have"),
    ({"thresholds": np.full(2, np.nan, np.float32)}, ValueError, "thresholds must be numbers"),
    ({"scales": np.zeros(49, np.float32)}, ValueError, "scales must have"),
    ({"shifts": np.zeros((50, 1), np.float32)}, ValueError, "shifts must have"),
    ({"shifts": [0.0] * 50}, TypeError, "shifts must be a float32 array, not list"),
]


@both_backends
@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_wrong_arguments_of_a_run(backend, wrong, error, message):
    sizes, evidence = (3, 20, 30), 4
    network = network_of(backend, *random_layers(backend, 0, sizes, evidence))
    with pytest.raises(error, match=message):
        backend.run_gated_network(network, **(random_call(0, sizes, evidence, 9) | wrong))


@both_backends
def test_layers_that_do_not_fit(backend):
    packed, parts = random_layers(backend, 0, (3, 20, 30), 4)
    (predictor, offset, _), (later, later_offset, _) = parts
    with pytest.raises(ValueError, match="offset must have one value for each of the 20 channels"):
        backend.gated_layer(packed[0], predictor, offset[1:].copy())
    with pytest.raises(ValueError, match=r"predictor must be \[inputs \+ evidence, outputs\]"):
        backend.gated_layer(packed[0], predictor[:2].copy(), offset)
    with pytest.raises(ValueError, match="layers must hold at least one"):
        backend.gated_network([])
    first, second = (
        backend.gated_layer(packed[0], predictor, offset),
        backend.gated_layer(packed[1], later, later_offset),
    )
    with pytest.raises(ValueError, match="as many inputs as the one before has outputs"):
        backend.gated_network([second, first])
    with pytest.raises(ValueError, match="as much evidence as the first"):
        backend.gated_network([first, backend.gated_layer(packed[1], later[1:].copy(), later_offset)])
