"""Tuning, on a model of speech so small that it takes a moment."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")
pytest.importorskip("torch")

import torch

from models.model import GateContext
from models.zoo.speech import SpeechRecognizer
from models.zoo.speech_calibration import better_of, calibrate, listen
from models.zoo.speech_data import Clip, split
from models.zoo.speech_tuning import Student, TuningRecipe, tune
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_words import Calibrated
from tests.models.zoo.random_whisper import write_random_whisper

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = TuningRecipe(steps=12, batch=2, rate=0.05, every=5)


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(1)
    seconds = random.uniform(0.2, 0.7, 24)
    audio = [(0.1 * random.standard_normal(int(16_000 * length))).astype(np.float32) for length in seconds]
    return [Clip(str(i), part, None) for i, part in enumerate(audio)]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, clips):
    folder = write_random_whisper(tmp_path_factory.mktemp("speech"), seed=4)
    tuning, held_out, _ = split(clips)
    profile, found = calibrate("speech", folder, tuning, held_out, lambda done: None, points=4)
    return SpeechRecognizer("speech", folder, profile, found), found


@pytest.fixture(scope="module")
def model(calibrated):
    return calibrated[0]


@pytest.fixture(scope="module")
def tensors(model):
    return read_whisper(model.folder).tensors


@pytest.fixture(scope="module")
def heard(model, clips):
    return [example for clip in clips[::3] if (example := listen(model, clip.audio)) is not None]


def logits(model, example, thresholds):
    """What the serving code says, a token at a time: so the decoder's gates choose for each."""
    whisper, context = model.whisper, GateContext(0.0)
    decoding = whisper.listen(
        whisper.encode(example.spectrum, example.speech, context, thresholds), context, thresholds
    )
    rows = [whisper.score([token], decoding, context, thresholds)[0] for token in example.tokens]
    return np.stack(rows)[example.prompted - 1 : -1]


def log_softmax(x):
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def divergence(model, examples, thresholds):
    found = []
    for example in examples:
        dense, gated = (log_softmax(logits(model, example, which)) for which in ({}, thresholds))
        found.append((np.exp(dense) * (dense - gated)).sum(1).mean())
    return np.mean(found)


def served_with(model, calibration):
    return SpeechRecognizer("speech", model.folder, model.profile, calibration)


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_the_student_is_the_served_model(calibrated, tensors, heard, level):
    model, found = calibrated
    silence = np.random.default_rng(0).normal(0, 0.3, model.whisper.shape.hidden).astype(np.float32)
    found = replace(found, silence=silence)
    thresholds = {gate: value for gate, value in model.profile.at(level).thresholds.items() if gate != "words"}
    with torch.no_grad():
        given = Student(model, tensors, found)(heard[0], thresholds).numpy()
    np.testing.assert_allclose(given, logits(served_with(model, found), heard[0], thresholds), rtol=5e-3, atol=5e-3)


def test_tuning_brings_gates_nearer_to_dense_and_leaves_dense_alone(calibrated, tensors, heard, tmp_path):
    model, found = calibrated
    seen = []
    tuned = tune(model, tensors, found, heard, RECIPE, seen.append)
    assert [step.number for step in seen] == list(range(1, 13))
    tuned.save(tmp_path / "tuned.safetensors")
    loaded = Calibrated.load(tmp_path / "tuned.safetensors")
    np.testing.assert_array_equal(loaded.silence, tuned.silence)
    after = served_with(model, loaded)
    thresholds = {gate: value for gate, value in model.profile.at(1.0).thresholds.items() if gate != "words"}
    assert divergence(after, heard, thresholds) < divergence(model, heard, thresholds)
    np.testing.assert_array_equal(logits(after, heard[0], {}), logits(model, heard[0], {}))


def test_an_interrupted_run_goes_on(calibrated, tensors, heard, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(step):
        if step.number == 7:
            raise Interrupted

    model, found = calibrated
    whole = tune(model, tensors, found, heard, RECIPE, lambda step: None)
    with pytest.raises(Interrupted):
        tune(model, tensors, found, heard, RECIPE, stop, tmp_path / "c.pt")
    seen = []
    resumed = tune(model, tensors, found, heard, RECIPE, seen.append, tmp_path / "c.pt")
    assert seen[0].number == 6
    np.testing.assert_allclose(resumed.silence, whole.silence, rtol=1e-4, atol=1e-6)
    for own, wanted in zip(resumed.means, whole.means, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-6)


def test_the_better_calibration_is_kept(calibrated, clips):
    model, found = calibrated
    worse = replace(found, means=[mean + 50 for mean in found.means])
    profile, kept, tuned = better_of(model, found, worse, clips[1::3], lambda done: None)
    assert (kept is found, tuned) == (True, False)
    assert [point.thresholds for point in profile.points] == [point.thresholds for point in model.profile.points]
    profile, kept, tuned = better_of(model, worse, found, clips[1::3], lambda done: None)
    assert (kept is found, tuned) == (True, True)


def test_what_silence_is_has_a_channel_for_each_of_the_model(calibrated):
    model, found = calibrated
    with pytest.raises(ValueError, match="what silence is"):
        served_with(model, replace(found, silence=np.zeros(3, np.float32)))


def test_a_dense_model_has_nothing_to_tune(calibrated, tensors, heard):
    model, found = calibrated
    with pytest.raises(ValueError, match=r"speech is dense, .*: run sluice calibrate speech first"):
        tune(SpeechRecognizer("speech", model.folder), tensors, found, heard, RECIPE, lambda step: None)
