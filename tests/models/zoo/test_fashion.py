"""The served classifier: the arithmetic of its trainable twin, only on the active channels."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models import kernels
from models.model import GateContext, InvalidInput
from models.zoo.fashion import level_tables
from models.zoo.fashion_shape import SHAPE
from tests.models.zoo.random_fashion import random_fashion


@pytest.fixture(scope="module")
def model():
    return random_fashion()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)


def run(model, images, level):
    context = GateContext(level)
    return model.run({"image": images}, context), context


def test_it_equals_the_trainable_network(tmp_path, images):
    torch = pytest.importorskip("torch")
    from models.gating import calibration
    from models.gating.network import GatedNetwork
    from models.zoo import fashion_training
    from models.zoo.fashion import FashionClassifier
    from models.zoo.fashion_weights import Calibration, load_weights

    torch.manual_seed(0)
    network = GatedNetwork(SHAPE)
    with torch.no_grad():
        for layer in network.layers:
            layer.predictor.normal_(0, 0.05)
            layer.offset.uniform_(0.4, 1.6)
            for slope in (layer.scale_slope, layer.shift_slope, layer.shift):
                slope.normal_(0, 0.1)
    fashion_training.write(fashion_training.gated_tensors(network), tmp_path / "w.safetensors")
    weights = load_weights(tmp_path / "w.safetensors")
    network = fashion_training.to_network(weights).eval()
    points = [calibration.calibrate(network, images, kept, fashion_training.EXPONENTS) for kept in (1.0, 0.5)]
    tables = Calibration(
        np.array([p.kept for p in points], np.float32),
        np.array([p.thresholds for p in points], np.float32),
        tuple(np.stack([p.statistics[i].mean for p in points]) for i in range(len(SHAPE.layers))),
        tuple(np.stack([p.statistics[i].variance for p in points]) for i in range(len(SHAPE.layers))),
    )
    served = FashionClassifier("f", weights, tables, fashion_training.unmeasured("f", weights.digest))
    for level, point in ((0.0, points[0]), (1.0, points[1])):
        with torch.no_grad():
            logits, traces = network(
                torch.tensor(images), point.kept, thresholds=point.thresholds, statistics=point.statistics
            )
        outputs, context = run(served, images, level)
        np.testing.assert_allclose(outputs["probabilities"], logits.softmax(1), rtol=1e-3, atol=1e-5)
        computed = [work.channels - work.skipped for work in context.layers.values()]
        assert computed == [int(trace.active.sum()) for trace in traces]


def test_outputs_are_probabilities_and_their_label(model, images):
    outputs, _ = run(model, images, 0.5)
    assert outputs["probabilities"].shape == (4, 10)
    assert outputs["probabilities"].dtype == np.float32
    np.testing.assert_allclose(outputs["probabilities"].sum(1), 1, rtol=1e-5)
    assert outputs["label"].dtype == np.int64
    assert (outputs["label"] == outputs["probabilities"].argmax(1)).all()


def test_a_higher_level_skips_more(model, images):
    skipped = [run(model, images, level)[1].macs_skipped_ratio for level in (0, 0.25, 0.5, 0.75, 1)]
    assert skipped == sorted(skipped)
    assert skipped[-1] > 0.5


def test_the_counts_are_those_of_the_images(model, images):
    _, context = run(model, images, 0.7)
    alone = [run(model, image[None], 0.7)[1] for image in images]
    assert context.macs == SHAPE.macs * 4 == model.dense_macs({"image": images})
    assert context.macs_skipped == sum(one.macs_skipped for one in alone)
    for layer in SHAPE.layers:
        assert context.layers[layer.name].channels == 4 * layer.outputs
        assert context.layers[layer.name].skipped == sum(one.layers[layer.name].skipped for one in alone)
    assert 0 < context.skip_rate < 1


def test_an_image_does_not_depend_on_the_others_in_its_request(model, images):
    together, _ = run(model, images, 0.6)
    for i, image in enumerate(images):
        assert np.array_equal(run(model, image[None], 0.6)[0]["probabilities"][0], together["probabilities"][i])


def test_requests_at_different_levels_do_not_touch_each_other(model, images):
    jobs = [(images[i % 4][None], level) for i in range(40) for level in (0.0, 0.33, 0.8, 1.0)]
    alone = [run(model, image, level) for image, level in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: run(model, *job), jobs))
    for (outputs, context), (wanted, counted) in zip(together, alone, strict=True):
        assert np.array_equal(outputs["probabilities"], wanted["probabilities"])
        assert context == counted


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one processor")
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_threads_see_the_same(model, images, level):
    alone, shared = (GateContext(level, threads=threads) for threads in (None, kernels.Threads(2)))
    np.testing.assert_array_equal(model.logits(images, shared), model.logits(images, alone))
    assert shared == alone


def test_between_two_points_the_tables_are_linear(model):
    low, middle, high = (level_tables(model._weights, model._calibration, level) for level in (0.25, 0.375, 0.5))
    for a, b, c in zip(low.thresholds, middle.thresholds, high.thresholds, strict=True):
        assert b == pytest.approx((a + c) / 2)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "image"),
        ({"picture": np.zeros((1, 28, 28), np.uint8)}, "picture"),
        ({"image": np.zeros((1, 28, 28), np.float32)}, "image"),
        ({"image": np.zeros((28, 28), np.uint8)}, "image"),
        ({"image": np.zeros((1, 28, 27), np.uint8)}, "image"),
        ({"image": np.zeros((0, 28, 28), np.uint8)}, "image"),
        ({"image": np.zeros((65, 28, 28), np.uint8)}, "image"),
    ],
)
def test_an_input_that_does_not_fit_is_named(model, inputs, field):
    with pytest.raises(InvalidInput, match=field) as raised:
        model.check(inputs)
    assert raised.value.field == field
