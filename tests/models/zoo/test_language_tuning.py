"""Tuning, on a language model so small that it takes a moment."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")
pytest.importorskip("torch")

import torch

from models import kernels
from models.zoo import text_data
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_calibration import calibrate
from models.zoo.language_gates import log_probabilities, masking, windows
from models.zoo.language_model import LanguageModel
from models.zoo.language_tuning import Student, TuningRecipe, tune
from models.zoo.llama_gates import FITTED_ON, FITTED_UNDER
from tests.models.zoo.random_llama import write_random_llama

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = " ".join(text_data.sample())[:1200]
RECIPE = TuningRecipe(steps=12, every=5, rate=0.05)


def calibrated(folder):
    dense = LanguageModel("tiny", folder)
    profile, calibration = calibrate(dense, TEXT, TEXT[::-1], lambda done: None, points=3)
    return LanguageModel("tiny", folder, profile, calibration)


def checkpoint_of(model):
    return Tensors(weights_path(model.folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return calibrated(write_random_llama(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512))


@pytest.fixture(scope="module")
def read(model):
    return windows(model.encode(TEXT), 12, 64)


def test_the_student_is_the_served_model(model, monkeypatch):
    # Without bf16, to which both would round in other places.
    monkeypatch.setattr(kernels, "instruction_set", lambda datatype: "portable")
    monkeypatch.setattr(kernels, "pack_rows", partial(kernels.pack_rows, instruction_set="portable"))
    served = LanguageModel("tiny", model.folder, model.profile, model.calibration)
    tokens = served.encode(TEXT)[:40]
    student = Student(served, checkpoint_of(served), served.calibration)
    thresholds = served.thresholds(0.7).copy()
    thresholds[-1] = 0  # the head is not tuned
    with torch.no_grad():
        given = student(torch.tensor([tokens[:-1]]), torch.from_numpy(thresholds)).log_softmax(-1)[0].numpy()
    wanted = log_probabilities(served.network, tokens, masking(served.network, served.calibration, thresholds))
    assert np.abs(log_probabilities(served.network, tokens) - wanted).mean() > 0.05
    np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-3)


def test_tuning_brings_gates_nearer_to_dense(model, read):
    # Where all that is left out is read coarsely, there is hardly anything to learn for so small a model.
    skipping = {name: values for name, values in model.calibration.items() if name not in (FITTED_ON, FITTED_UNDER)}
    begun = LanguageModel("tiny", model.folder, model.profile, skipping)
    seen = []
    tuned = tune(begun, checkpoint_of(begun), read, TuningRecipe(steps=40, rate=0.05), seen.append)
    assert [step.number for step in seen] == list(range(1, 41))
    assert set(tuned) == set(skipping) | {f"layer{i}.down" for i in (1, 2, 3)}
    thresholds = model.thresholds(1.0).copy()
    thresholds[-1] = 0

    def divergence(calibration):
        found = []
        for tokens in read:
            dense = log_probabilities(model.network, tokens)
            gated = log_probabilities(begun.network, tokens, masking(begun.network, calibration, thresholds))
            found.append((np.exp(dense) * (dense - gated)).sum(1).mean())
        return np.mean(found)

    assert divergence(tuned) < 0.9 * divergence(skipping)


def test_an_interrupted_run_goes_on(model, read, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(step):
        if step.number == 7:
            raise Interrupted

    whole = tune(model, checkpoint_of(model), read, RECIPE, lambda step: None)
    with pytest.raises(Interrupted):
        tune(model, checkpoint_of(model), read, RECIPE, stop, tmp_path / "c.pt")
    seen = []
    resumed = tune(model, checkpoint_of(model), read, RECIPE, seen.append, tmp_path / "c.pt")
    assert seen[0].number == 6
    for gate, values in whole.items():
        np.testing.assert_allclose(resumed[gate], values, rtol=1e-5, atol=1e-6)
