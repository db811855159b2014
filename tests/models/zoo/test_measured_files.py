"""What a family says of its weights on disk is what its models and profiles say of them."""

from functools import partial

import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models.gating.profile import Profile
from models.zoo import catalog
from tests.models.zoo.random_bert import write_random_bert
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.random_whisper import write_random_whisper

FOLDERS = {
    "bert": write_random_bert,
    "llama": write_random_llama,
    "llama in parts": partial(write_random_llama, shards=2),
    "whisper": write_random_whisper,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder(tmp_path, kind):
    name = str(FOLDERS[kind](tmp_path / "folder"))
    assert catalog.measured_files(name, tmp_path) is None
    digest = catalog.load(name).profile.weights_digest
    Profile.dense("folder", digest).save(tmp_path / "folder.profile.json")
    files = catalog.measured_files(f"{name}:bf16", tmp_path)
    assert files.profile == tmp_path / "folder.profile.json"
    assert files.digest() == digest
    largest = max(files.weights, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    assert files.digest() != digest


@pytest.mark.parametrize("entry", catalog.available(), ids=lambda entry: entry.name)
def test_a_model_by_its_name(entry):
    if not entry.installed:
        pytest.skip(f"it is not installed: {entry.missing}")
    files = catalog.measured_files(entry.name)
    assert files.digest() == Profile.load(files.profile).weights_digest
