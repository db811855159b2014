from base64 import b64encode
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from loadtest.peers.network import Classifier, DenseNetwork
from models.model import GateContext
from models.zoo.fashion import FashionClassifier
from tests.models.zoo.random_fashion import random_fashion
from tests.tiny_model import random_images


def open_gates() -> FashionClassifier:
    """Random weights, and gates that let every channel through with the multiplier 1: the network without gates."""
    gated = random_fashion()
    layers = tuple(
        replace(layer, predictor=np.zeros_like(layer.predictor), offset=np.ones_like(layer.offset))
        for layer in gated._weights.layers
    )
    calibration = replace(gated._calibration, thresholds=np.zeros_like(gated._calibration.thresholds))
    return FashionClassifier("fashion", replace(gated._weights, layers=layers), calibration, gated.profile)


def test_it_is_the_network_that_the_server_serves():
    model, images = open_gates(), random_images(6)
    expected = model.run({"image": images}, GateContext(0.0))["probabilities"]
    network = DenseNetwork(model._weights, model._calibration).eval()
    with torch.inference_mode():
        probabilities = network(torch.from_numpy(images)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-5)


def test_an_image_in_base64():
    threads = torch.get_num_threads()
    try:
        model, images = open_gates(), random_images(3)
        classify = Classifier(DenseNetwork(model._weights, model._calibration))
        labels = [classify(b64encode(image.tobytes()).decode()) for image in images]
    finally:
        torch.set_num_threads(threads)
    assert labels == model.run({"image": images}, GateContext(0.0))["label"].tolist()
