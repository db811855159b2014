from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from safetensors.numpy import save_file

from models.zoo.bert import Bert
from models.zoo.lean_fitting import fit_lean
from models.zoo.lean_layers import load_lean, save_lean
from models.zoo.text_profile import OtherWeights
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_bert import WORDS, write_random_bert


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    random = np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(30)]
    return fit_lean(Bert(write_random_bert(tmp_path_factory.mktemp("bert"))), sequences)


def test_layers_survive_their_file(parts, tmp_path):
    save_lean(parts, tmp_path / "lean.safetensors", "texts")
    for kept, wanted in zip(load_lean(tmp_path / "lean.safetensors", "texts"), parts, strict=True):
        assert np.array_equal(kept.kept, wanted.kept)
        assert (kept.score_saliency, kept.neuron_saliency) == (wanted.score_saliency, wanted.neuron_saliency)
        for name, (weight, bias) in wanted.weights.items():
            assert np.array_equal(kept.weights[name][0], weight)
            assert np.array_equal(kept.weights[name][1], bias)
    assert [path.name for path in tmp_path.iterdir()] == ["lean.safetensors"]


def test_what_was_made_of_something_else_is_refused(parts, tmp_path):
    save_lean(parts, tmp_path / "lean.safetensors", "texts")
    with pytest.raises(OtherWeights, match="made of something else"):
        load_lean(tmp_path / "lean.safetensors", "other texts")


def test_another_file_is_refused(tmp_path):
    save_file({"layer1": np.zeros(3, np.float32)}, tmp_path / "means.safetensors")
    with pytest.raises(OtherWeights, match="has no lean layers"):
        load_lean(tmp_path / "means.safetensors")


def test_layers_of_a_larger_encoder_are_refused(parts, tmp_path):
    folder = write_random_bert(tmp_path)
    larger = {**parts[0].weights, "up": tuple(np.repeat(part, 2, 0) for part in parts[0].weights["up"])}
    with pytest.raises(OtherWeights, match="the lean layer's up is"):
        Bert(folder, [replace(parts[0], weights=larger), parts[1]])
