"""Coarse weights that are fitted to what a language model's gates leave to them."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models import kernels
from models.model import GateContext
from models.zoo import packed_rows, text_data
from models.zoo.coarse_fitting import DAMPING, order_and_factor, to_fit_on
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_calibration import calibrate
from models.zoo.language_model import LanguageModel
from models.zoo.llama_gates import FITTED_ON, FITTED_UNDER, GATES, SINKS
from models.zoo.llama_layer import product_names
from tests.models.zoo.random_llama import write_random_llama

TEXT = " ".join(text_data.sample())[:600]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = write_random_llama(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512)
    profile, calibration = calibrate(LanguageModel("tiny", folder), TEXT, TEXT[::-1], lambda done: None, points=4)
    return folder, profile, calibration


def test_what_is_left_to_them_is_nearer_to_exact(calibrated):
    folder, profile, calibration = calibrated
    all_left = calibration | {FITTED_UNDER: np.full_like(calibration[FITTED_UNDER], 1e4)}
    fitted = LanguageModel("tiny", folder, profile, all_left).network
    plain = LanguageModel("tiny", folder).network
    seen = {}

    def watch(gate, values):
        seen[gate] = values[SINKS:] - values[SINKS:].mean(0)
        return values

    tokens = [int(token) for token in calibration[FITTED_ON][0]]
    plain.advance(tokens, plain.start(), watch)
    plain.make_coarse()
    errors = {"fitted": [], "plain": []}
    for layer in range(plain.shape.layers):
        exact = {part: folder_weights(folder, names) for part, names in product_names(layer).items()}
        for part, gate in (("qkv", "attention"), ("output", "output"), ("gate", "feed_forward"), ("down", "down")):
            left = seen[len(GATES) * layer + GATES.index(gate)]
            for name, network in (("fitted", fitted), ("plain", plain)):
                missed = getattr(network.layers[layer], part).coarse.weight - exact[part]
                errors[name].append(np.linalg.norm(left @ missed.T) / np.linalg.norm(left @ exact[part].T))
    assert np.mean(errors["fitted"]) < 0.8 * np.mean(errors["plain"])


def folder_weights(folder, names):
    weights = Tensors(weights_path(folder))
    return np.concatenate([weights[f"{name}.weight"] for name in names])


def test_they_are_fitted_once_where_packed_weights_are_kept(calibrated, tmp_path, monkeypatch):
    folder, profile, calibration = calibrated
    monkeypatch.setattr(packed_rows, "LEAST_BYTES", 0)
    shares = [], []
    first, second = (
        LanguageModel("tiny", folder, profile, calibration, report=own.append, kept=tmp_path) for own in shares
    )
    # The first start tells each product of each layer that it fits.
    assert len(shares[0]) == len(shares[1]) + 5 * first.network.shape.layers
    assert all(own == sorted(own) for own in shares)
    for name, weight in first.network.coarse_weights().items():
        np.testing.assert_array_equal(second.network.coarse_weights()[name], weight)
    # Under other thresholds they are others.
    other = calibration | {FITTED_UNDER: calibration[FITTED_UNDER] / 3}
    again = LanguageModel("tiny", folder, profile, other, kept=tmp_path).network.coarse_weights()
    assert any((again[name] != weight).any() for name, weight in first.network.coarse_weights().items())


def test_gates_of_a_calibration_without_what_they_are_fitted_on_skip(calibrated):
    folder, profile, calibration = calibrated
    older = {name: values for name, values in calibration.items() if name not in (FITTED_ON, FITTED_UNDER)}
    model = LanguageModel("tiny", folder, profile, older)
    assert not model.network.coarse_gates.any()
    sequence, context = model.begin(model.encode(TEXT)[:1]), GateContext(1.0)
    for token in model.encode(TEXT)[1:8]:
        model.step([sequence], [context])
        sequence.append(token)
    assert context.macs_skipped > 0


def test_what_is_kept_to_fit_on():
    tokens = list(range(3000))
    kept = to_fit_on(tokens, [np.full(11, 0.1), np.full(11, 0.2)])
    assert kept[FITTED_ON].shape == (11, 256)
    assert kept[FITTED_ON][0].tolist() == list(range(256))
    assert kept[FITTED_UNDER].shape == (2, 11)


def test_the_factor_is_that_of_the_inverse_in_order():
    x = np.random.default_rng(0).standard_normal((50, 8)) * np.arange(1, 9)
    moments = x.T @ x
    order, factor = order_and_factor(moments)
    assert order.tolist() == np.argsort(-moments.diagonal()).tolist()
    inverse = factor @ factor.T
    damped = moments[np.ix_(order, order)] + DAMPING * moments.diagonal().mean() * np.eye(8)
    np.testing.assert_allclose(inverse @ damped, np.eye(8), atol=1e-3)


def test_nothing_left_is_nothing_to_make_up_for():
    order, factor = order_and_factor(np.zeros((4, 4)))
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    found = kernels.pack_coarse(weight, order=order, factor=factor).weight
    np.testing.assert_allclose(found, weight, atol=0.3 * np.abs(weight).max())
