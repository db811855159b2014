"""The four steps against plain masked arithmetic: what is skipped is what would have been zero."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.gating.gate import Activation, GatedConvolution, compute, fuse, saliency, select, squeeze
from models.gating.primitives import keep_neurons
from models.gating.shape import LayerShape

SHAPE = LayerShape("layer", 24, 40, 6, pool=True)
EVIDENCE = 5


def make_layer(random: np.random.Generator) -> tuple[GatedConvolution, np.ndarray]:
    weight = random.normal(0, 0.1, (SHAPE.outputs, SHAPE.inputs, 3, 3)).astype(np.float32)
    predictor = random.normal(0, 0.1, (SHAPE.inputs + EVIDENCE, SHAPE.outputs)).astype(np.float32)
    offset = random.uniform(-0.5, 1.5, SHAPE.outputs).astype(np.float32)
    return GatedConvolution(SHAPE, kernels.pack_convolution(weight, padding=1), predictor, offset), weight


def masked_convolution(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Every channel computed, [h, w, outputs], in float64."""
    padded = np.pad(x.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    h, w, _ = x.shape
    return sum(
        padded[i : i + h, j : j + w] @ weight[:, :, i, j].T.astype(np.float64) for i in range(3) for j in range(3)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1.5, width=32), st.integers(1, SHAPE.inputs))
def test_a_gated_layer_equals_the_masked_one(seed, threshold, active_inputs):
    random = np.random.default_rng(seed)
    layer, weight = make_layer(random)
    chosen = np.sort(random.permutation(SHAPE.inputs)[:active_inputs]).astype(np.int32)
    x = np.zeros((6, 6, SHAPE.inputs), np.float32)
    x[:, :, chosen] = random.normal(1, 1, (6, 6, active_inputs))
    evidence = random.uniform(0, 1, EVIDENCE).astype(np.float32)
    scale = random.uniform(0.5, 1.5, SHAPE.outputs).astype(np.float32)
    shift = random.normal(0, 0.2, SHAPE.outputs).astype(np.float32)

    y = layer(Activation(np.ascontiguousarray(x[:, :, chosen]), chosen), evidence, threshold, scale, shift)

    a = saliency(squeeze(Activation(x, None), SHAPE.inputs, evidence), layer.predictor, layer.offset)
    active, multipliers = select(a, threshold)
    dense = np.maximum(masked_convolution(x, weight) * scale + shift, 0)
    gates = np.zeros(SHAPE.outputs)
    gates[active] = multipliers
    wanted = (dense * gates).reshape(3, 2, 3, 2, -1).max((1, 3))
    assert y.active.tolist() == active.tolist()
    np.testing.assert_allclose(y.values, wanted[:, :, active], rtol=2e-4, atol=2e-5)


def test_fused_layers_do_what_they_do_one_after_another():
    random = np.random.default_rng(5)
    first, _ = make_layer(random)
    shape = LayerShape("next", SHAPE.outputs, 30, 3)
    weight = random.normal(0, 0.1, (30, SHAPE.outputs, 3, 3)).astype(np.float32)
    predictor = random.normal(0, 0.1, (SHAPE.outputs + EVIDENCE, 30)).astype(np.float32)
    second = GatedConvolution(shape, kernels.pack_convolution(weight, padding=1), predictor, np.ones(30, np.float32))
    x, evidence = random.normal(1, 1, (6, 6, SHAPE.inputs)).astype(np.float32), np.ones(EVIDENCE, np.float32)
    scales, shifts = random.uniform(0.5, 1.5, 70).astype(np.float32), random.normal(0, 0.2, 70).astype(np.float32)
    thresholds = np.array([0.4, 0.9], np.float32)

    y = first(Activation(x, None), evidence, thresholds[0], scales[:40], shifts[:40])
    z = second(y, evidence, thresholds[1], scales[40:], shifts[40:])
    means, active = kernels.run_gated_network(
        fuse([first, second]), x, evidence, thresholds=thresholds, scales=scales, shifts=shifts
    )
    assert [channels.tolist() for channels in active] == [y.active.tolist(), z.active.tolist()]
    np.testing.assert_array_equal(means, kernels.channel_means(z.values))


def test_selecting_is_keeping_neurons_above_the_threshold():
    a = np.array([0.3, 0.9, 0.5, 1.2], np.float32)
    active, _ = select(a, 0.5)
    assert active.tolist() == np.flatnonzero(keep_neurons(a, 0.5)).tolist() == [1, 3]


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.0, 1e9])
def test_the_fused_gate_equals_its_two_steps(threshold):
    random = np.random.default_rng(1)
    layer, _ = make_layer(random)
    features = random.uniform(0, 2, SHAPE.inputs + EVIDENCE).astype(np.float32)
    active, multipliers = kernels.gate_channels(features, layer.predictor, layer.offset, threshold)
    wanted, factors = select(saliency(features, layer.predictor, layer.offset), threshold)
    assert active.tolist() == wanted.tolist()
    np.testing.assert_allclose(multipliers, factors, rtol=1e-5)


def test_one_channel_is_kept_when_none_is_above_the_threshold():
    active, multipliers = select(np.array([-1.0, -0.5, -2.0], np.float32), 0.0)
    assert active.tolist() == [1]
    assert multipliers.tolist() == [1]


def test_a_higher_threshold_never_selects_a_new_channel():
    a = np.random.default_rng(2).normal(1, 1, 100).astype(np.float32)
    chosen = [set(select(a, threshold)[0].tolist()) for threshold in np.linspace(0, 2, 20)]
    assert all(later <= earlier for earlier, later in pairwise(chosen))


def test_squeezing_does_not_depend_on_how_bright_the_input_is():
    x = np.random.default_rng(3).uniform(0, 1, (6, 6, SHAPE.inputs)).astype(np.float32)
    evidence = np.ones(EVIDENCE, np.float32)
    features = squeeze(Activation(x, None), SHAPE.inputs, evidence)
    np.testing.assert_allclose(squeeze(Activation(3 * x, None), SHAPE.inputs, evidence), features, rtol=1e-5)
    assert features[: SHAPE.inputs].mean() == pytest.approx(1, rel=1e-5)


def test_a_skipped_channel_is_not_in_memory():
    random = np.random.default_rng(4)
    layer, _ = make_layer(random)
    x = Activation(random.normal(0, 1, (6, 6, SHAPE.inputs)).astype(np.float32), None)
    ones, zeros = np.ones(SHAPE.outputs, np.float32), np.zeros(SHAPE.outputs, np.float32)
    y = compute(x, layer, np.array([3, 7], np.int32), np.ones(2, np.float32), ones, zeros)
    assert y.values.shape == (3, 3, 2)
