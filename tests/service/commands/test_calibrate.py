"""`sluice calibrate` on folders of one's own."""

import json
import wave

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.gating.profile import Profile
from models.zoo import catalog, language_calibration
from service.cli import command_line
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.random_whisper import write_random_whisper


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments, status=0):
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def clips(tmp_path):
    random, folder = np.random.default_rng(0), tmp_path / "clips"
    folder.mkdir()
    for number in range(15):
        samples = (random.uniform(-0.1, 0.1, 8_000) * 32_767).astype(np.int16)
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())
    return folder


@pytest.mark.parametrize("name", ["mine", "whisper-tiny.en"])
def test_a_folder_of_speech_gets_a_profile_whatever_is_there_of_its_name(tmp_path, home, clips, name):
    folder = write_random_whisper(tmp_path / name)
    (home / "calibrations").mkdir(parents=True)
    Profile.dense(name, "0" * 64).save(home / "calibrations" / f"{name}.profile.json")
    run("calibrate", str(folder), "--data", str(clips), "--points", "2", "--json")
    model = catalog.load(str(folder), home / "calibrations")
    assert [point.level for point in model.profile.points] == [0, 1]


def test_a_language_model_gets_a_profile_whatever_is_there_of_its_name(tmp_path, home, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("jinja2", reason="the extra `language` is not installed")
    seen = []

    def calibrate(model, *_, **__):
        seen.append(model)
        return Profile.dense("smollm2", model.digest), {}

    monkeypatch.setattr(language_calibration, "calibrate", calibrate)
    (tmp_path / "texts").write_text("\n".join(f"The sea has {number} ships." for number in range(40)))
    folder = write_random_llama(tmp_path / "smollm2")
    profile = json.loads(run("calibrate", str(folder), "--data", str(tmp_path / "texts"), "--json").stdout)
    assert [model.name for model in seen] == ["smollm2:bf16"]
    assert profile["weights_digest"] == seen[0].digest


@pytest.mark.parametrize("command", [("calibrate",), ("quality",), ("tune", "--data", __file__)])
@pytest.mark.parametrize("content", ["{", "[]", "version https://git-lfs.github.com/spec/v1"])
def test_a_torn_configuration_is_no_stack_trace(tmp_path, content, command):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(content)
    result = run(*command, str(tmp_path / "mine"), status=1)
    assert isinstance(result.exception, SystemExit)
    assert "config.json" in result.output
