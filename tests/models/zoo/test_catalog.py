import pytest

from models.zoo import catalog
from models.zoo.catalog import MissingWeights, UnknownModel


def test_an_unknown_model_is_named_beside_the_known_ones():
    with pytest.raises(UnknownModel, match=r"resnet.*fashion"):
        catalog.load("resnet")


def test_the_image_model_is_listed():
    (entry,) = catalog.available()
    assert entry.name == "fashion"
    assert entry.installed is (entry.missing == "")


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
