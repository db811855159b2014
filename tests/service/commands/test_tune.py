"""`sluice tune` on a folder and texts of one's own."""

import json
import wave

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
pytest.importorskip("torch")

import torch

from models.model import GateContext
from models.zoo import catalog, text_calibration, text_data
from service.cli import command_line
from tests.models.zoo.random_bert import WORDS, write_random_bert
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.random_whisper import write_random_whisper


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_tuned_folder_is_served_with_its_tuned_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    # There are two heads in a layer: to leave one out, which needs no tuning, is most of what could be saved.
    monkeypatch.setattr(text_calibration, "HEAD_GRID", ())
    random = np.random.default_rng(0)
    sentences = [f"{' '.join(random.choice(WORDS, random.integers(5, 12)))}." for _ in range(60)]
    (tmp_path / "prose").write_text("\n\n".join("\n".join(sentences[at : at + 6]) for at in range(0, 60, 6)))
    folder = str(write_random_bert(tmp_path / "mine"))
    arguments = [
        "tune",
        folder,
        "--data",
        str(tmp_path / "prose"),
        "--prose",
        "--steps",
        "40",
        "--points",
        "3",
        "--json",
    ]
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == 0, result.output
    profile = json.loads(result.stdout)
    assert profile["points"][-1]["macs_ratio"] < 0.9
    result = CliRunner().invoke(command_line(), [*arguments, "--further"])
    learned = tmp_path / "home" / "calibrations" / "mine.tuned.differences.safetensors.gz"
    assert learned.exists(), "two steps made the layers worse"
    assert result.exit_code == 0, result.output

    calibrations = tmp_path / "home" / "calibrations"
    assert catalog.profile_stamp(folder, calibrations)[0] == calibrations / "mine.tuned.profile.json"
    inputs = {"text": np.array([b"the old captain of the white ship saw the whale"], object)}
    lines = tmp_path / "lines"
    lines.write_text("\n".join(sentences[:40]))
    stamp = catalog.profile_stamp(folder, calibrations)
    arguments = ["calibrate", folder, "--data", str(lines), "--points", "3", "--json"]
    assert CliRunner().invoke(command_line(), arguments).exit_code == 0
    assert catalog.profile_stamp(folder, calibrations)[0] == stamp[0]
    assert catalog.profile_stamp(folder, calibrations) != stamp
    model = catalog.load(folder, calibrations)
    dense, gated = GateContext(0.0), GateContext(1.0)
    wanted = catalog.load(folder).run(inputs, GateContext(0.0))
    assert np.array_equal(model.run(inputs, dense)["embedding"], wanted["embedding"])
    model.run(inputs, gated)
    assert dense.macs_skipped == 0
    assert any(work.skipped for layer, work in gated.layers.items() if layer.endswith("neurons"))


def test_only_what_was_tuned_is_tuned_further(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    (tmp_path / "texts").write_text("one text\n" * 40)
    arguments = ["--data", str(tmp_path / "texts"), "--further"]
    for write, message in ((write_random_bert, "was not tuned before"), (write_random_llama, "is for models of texts")):
        result = CliRunner().invoke(command_line(), ["tune", str(write(tmp_path / write.__name__)), *arguments])
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())


def test_what_cannot_be_tuned_says_why(tmp_path):
    (tmp_path / "texts").write_text("one text\n")
    result = CliRunner().invoke(command_line(), ["tune", "resnet", "--data", str(tmp_path / "texts")])
    assert result.exit_code != 0
    assert "no model of texts 'resnet'" in result.output


def test_a_tuned_language_model_keeps_its_points(tmp_path, monkeypatch):
    pytest.importorskip("jinja2", reason="the extra `language` is not installed")
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    (tmp_path / "lines").write_text("\n".join(text_data.sample()[:30]))
    folder = str(write_random_llama(tmp_path / "mine", max_position_embeddings=512))
    arguments = [folder, "--data", str(tmp_path / "lines"), "--json"]
    tuning = ["tune", *arguments, "--steps", "2"]
    result = CliRunner().invoke(command_line(), tuning)
    assert result.exit_code == 1
    assert "run sluice calibrate" in result.output
    result = CliRunner().invoke(command_line(), ["calibrate", *arguments, "--points", "3"])
    assert result.exit_code == 0, result.output
    before = json.loads(result.stdout)["points"]
    result = CliRunner().invoke(command_line(), tuning)
    assert result.exit_code == 0, result.output
    after = json.loads(result.stdout)["points"]
    assert [point["thresholds"] for point in after] == [point["thresholds"] for point in before]
    assert (tmp_path / "home" / "training" / "mine-tuning-0.pt").exists()
    assert catalog.load(folder, tmp_path / "home" / "calibrations").profile.points[-1].macs_ratio < 0.95


def test_a_tuned_model_of_speech_keeps_its_points(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    random = np.random.default_rng(0)
    for name, count in (("clips", 16), ("other", 4)):
        (tmp_path / name).mkdir()
        for number in range(count):
            samples = random.integers(-3000, 3000, int(16_000 * random.uniform(0.2, 0.7)), np.int16)
            with wave.open(str(tmp_path / name / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
                file.writeframes(samples.tobytes())
    folder = str(write_random_whisper(tmp_path / "mine"))
    arguments = [folder, "--data", str(tmp_path / "clips"), "--json"]
    tuning = ["tune", *arguments, "--steps", "2", "--held-out", str(tmp_path / "other")]
    result = CliRunner().invoke(command_line(), tuning)
    assert result.exit_code == 1
    assert "run sluice calibrate" in result.output
    result = CliRunner().invoke(command_line(), ["calibrate", *arguments, "--points", "3"])
    assert result.exit_code == 0, result.output
    before = json.loads(result.stdout)["points"]
    result = CliRunner().invoke(command_line(), tuning)
    assert result.exit_code == 0, result.output
    after = json.loads(result.stdout)
    assert [point["thresholds"] for point in after["points"]] == [point["thresholds"] for point in before]
    assert after["samples"] == 4
    assert (tmp_path / "home" / "training" / "mine-tuning-0.pt").exists()
    assert catalog.load(folder, tmp_path / "home" / "calibrations").profile.points[-1].macs_ratio < 1
