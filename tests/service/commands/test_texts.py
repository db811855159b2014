"""`sluice calibrate` and `sluice quality` on a folder and texts of one's own."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo import catalog
from service.cli import command_line
from tests.models.zoo.random_bert import WORDS, write_random_bert


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write_texts(path, pairs=False):
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, random.integers(5, 15))) for _ in range(36)]
    path.write_text("\n".join(f"{line}\t{line[::-1]}" if pairs else line for line in lines))
    return str(path)


def run(*arguments, status=0):
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == status, result.output
    return result.stdout


def test_a_folder_is_calibrated_and_measured_on_the_users_texts(tmp_path, home, caplog):
    folder, texts = str(write_random_bert(tmp_path / "mine")), write_texts(tmp_path / "texts")
    dense = catalog.load(folder, home / "calibrations")
    assert len(dense.profile.points) == 1
    assert f"mine is served dense: it has no profile; sluice calibrate {folder}" in caplog.text
    assert catalog.profile_stamp(folder, home / "calibrations") is None

    profile = json.loads(run("calibrate", folder, "--data", texts, "--points", "3", "--json"))
    assert profile["model"] == "mine"
    assert catalog.profile_stamp(folder, home / "calibrations")[0] == home / "calibrations" / "mine.profile.json"
    model = catalog.load(folder, home / "calibrations")
    context = GateContext(1.0)
    model.run({"text": np.array([b"the old captain of the white ship saw the whale"], object)}, context)
    assert context.macs_skipped > 0

    caplog.clear()
    other = write_random_bert(tmp_path / "again" / "mine", seed=1)
    assert len(catalog.load(str(other), home / "calibrations").profile.points) == 1
    assert "was measured on other weights" in caplog.text


def test_quality_is_that_of_the_profile_with_its_bounds(tmp_path, home, monkeypatch):
    from models.zoo import text_data

    folder, texts = str(write_random_bert(tmp_path / "mine")), write_texts(tmp_path / "texts")
    run("calibrate", folder, "--data", texts, "--points", "3", "--json")
    lines = text_data.read_lines(tmp_path / "texts")[:8]
    ratings = np.random.default_rng(0).uniform(0, 1, (8, 8))
    rated = text_data.RatedDocuments(lines, (ratings + ratings.T) / 2)
    monkeypatch.setattr(text_data, "lee", lambda: rated)
    report = json.loads(run("quality", folder, "--data", texts, "--json"))
    first, *_, last = report["points"]
    assert report["texts"] == 36
    assert first["agreement"] == pytest.approx(1)
    assert 0.5 < last["agreement_lower"] < last["agreement"] < 1
    assert first["documents"]["spearman"] == pytest.approx(1)
    assert last["documents"]["spearman_lower"] < last["documents"]["spearman"]
    assert last["documents"]["spearman_people_lower"] < last["documents"]["spearman_people"] < 0.9
    assert "Spearman to people" in run("quality", folder, "--data", texts)
    chosen = json.loads(run("quality", folder, "--data", texts, "--levels", "0.9,0.3,0", "--json"))
    assert [row["level"] for row in chosen["points"]] == [0, 0.3, 0.9]
    assert chosen["points"][0]["documents"]["time_ratio"] == 1
    assert all(row["documents"]["ms"] > 0 for row in chosen["points"])
    for wrong in ("1.5", "half", "0.5;1", ""):
        refused = CliRunner().invoke(command_line(), ["quality", folder, "--data", texts, "--levels", wrong])
        assert refused.exit_code == 1
        assert "--levels must be numbers from 0 to 1" in refused.output


def test_a_model_of_pairs_is_calibrated_on_pairs(tmp_path, home):
    pytest.importorskip("transformers")
    from tests.models.zoo.random_encoders import write_encoder

    folder = str(write_encoder(tmp_path / "ranker", "bert", "ForSequenceClassification", num_labels=1))
    assert "with a tab in a pair" in CliRunner().invoke(command_line(), ["calibrate", folder]).output
    texts = write_texts(tmp_path / "texts", pairs=True)
    profile = json.loads(run("calibrate", folder, "--data", texts, "--points", "3", "--json"))
    assert profile["points"][-1]["macs_ratio"] < 1
    report = json.loads(run("quality", folder, "--data", texts, "--json"))
    assert report["documents"] == 0
    assert report["points"][-1]["macs_ratio"] < 1
