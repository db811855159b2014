import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.gating.profile import Profile
from models.model import GateContext
from models.zoo import speech_family
from models.zoo.speech import SpeechRecognizer
from models.zoo.speech_calibration import calibrate
from models.zoo.speech_data import Clip, split
from models.zoo.speech_quality import measure_speech
from models.zoo.whisper_words import Calibrated
from tests.models.zoo.random_whisper import write_random_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_whisper(tmp_path_factory.mktemp("whisper"), seed=4)


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(0)
    seconds = random.uniform(0.2, 0.7, 24)
    audio = [(0.1 * random.standard_normal(int(16_000 * length))).astype(np.float32) for length in seconds]
    return [Clip(str(i), part, "the old ship") for i, part in enumerate(audio)]


@pytest.fixture(scope="module")
def calibrated(folder, clips):
    tuning, held_out, _ = split(clips)
    return calibrate("speech", folder, tuning, held_out, lambda done: None, points=4)


def test_a_profile_goes_from_dense_to_less_work(calibrated):
    profile, _ = calibrated
    assert [point.level for point in profile.points] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    work = [point.macs_ratio for point in profile.points]
    assert work[0] == 1
    assert work == sorted(work, reverse=True)
    assert work[-1] < 0.9
    assert all(0 <= point.agreement_lower <= point.agreement <= 1 for point in profile.points)
    assert all(point.accuracy is not None for point in profile.points)
    gates = {"positions", "heads", "words", *(f"{part}{i}.neurons" for part in ("encoder", "decoder") for i in (1, 2))}
    assert set(profile.points[-1].thresholds) == gates


def test_the_served_model_does_what_its_profile_says(folder, clips, calibrated, tmp_path):
    profile, found = calibrated
    profile.save(tmp_path / f"{folder.name}.profile.json")
    found.save(speech_family.calibrated_beside(tmp_path / f"{folder.name}.profile.json"))
    model = speech_family.load(str(folder), tmp_path)
    _, held_out, _ = split(clips)
    work, agreeing = [], []
    for clip in held_out:
        inputs, context = {"audio": clip.audio}, GateContext(1.0)
        outputs = model.run(inputs, context)
        work.append(1 - context.macs_skipped_ratio)
        agreeing.append(model.agreement(outputs, model.run(inputs, GateContext(0.0))))
    assert np.mean(work) == pytest.approx(profile.points[-1].macs_ratio)
    assert np.mean(agreeing) == pytest.approx(profile.points[-1].agreement)
    assert set(context.layers) == set(profile.points[-1].thresholds)


def test_every_level_is_measured(folder, clips, calibrated):
    profile, found = calibrated
    levels = [point.level for point in profile.points]
    report = measure_speech(SpeechRecognizer("speech", folder, profile, found), clips[:6], levels, lambda done: None)
    assert (report["clips"], report["words"]) == (6, 18)
    assert [row["level"] for row in report["points"]] == [point.level for point in profile.points]
    for row in report["points"]:
        low, high = row["wer_bounds"]
        assert low <= row["wer"] <= high
    assert report["points"][0]["wer_lost"] == 0
    # None of these is as long as those that are timed.
    assert report["points"][0]["ms"] is None


def test_recordings_without_texts_cannot_be_measured(folder):
    model = SpeechRecognizer("speech", folder)
    with pytest.raises(ValueError, match="must have its text"):
        measure_speech(model, [Clip("a", np.ones(1600, np.float32), None)], [0.0], lambda done: None)


def test_a_calibration_survives_its_file(calibrated, tmp_path):
    _, found = calibrated
    found.save(tmp_path / "a.calibration.safetensors")
    again = Calibrated.load(tmp_path / "a.calibration.safetensors")
    assert np.array_equal(again.project, found.project)
    assert all(np.array_equal(a, b) for a, b in zip(again.means, found.means, strict=True))


def test_the_packaged_profile_is_a_dial():
    path = speech_family.profile_path("whisper-tiny.en")
    assert path is not None
    points = Profile.load(path).points
    assert [point.macs_ratio for point in points] == sorted((point.macs_ratio for point in points), reverse=True)
    assert next(point.macs_ratio for point in reversed(points) if point.agreement >= 0.95) < 1 / 3
    assert len(Calibrated.load(speech_family.calibrated_beside(path)).means) == 8
