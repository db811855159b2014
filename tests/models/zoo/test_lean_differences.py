import gzip
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from safetensors.numpy import save

from models.zoo import text_family
from models.zoo.bert import Bert
from models.zoo.lean_differences import add_differences, load_differences, save_differences
from models.zoo.lean_fitting import fit_lean
from models.zoo.lean_layers import PRODUCTS
from models.zoo.text_profile import OtherWeights
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_bert import WORDS, write_random_bert
from tests.models.zoo.random_differences import random_difference


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    random = np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(30)]
    return fit_lean(Bert(write_random_bert(tmp_path_factory.mktemp("bert"))), sequences)


@pytest.fixture(scope="module")
def differences(layers):
    return [random_difference(layer, seed) for seed, layer in enumerate(layers)]


def test_they_are_added_to_weights_and_biases(layers, differences):
    added, up = add_differences(layers, differences)[1].weights, differences[1].products["up"]
    weight, bias = layers[1].weights["up"]
    assert added["up"][0] == pytest.approx(weight + up.left @ up.right, abs=1e-6)
    assert added["up"][1] == pytest.approx(bias + up.bias, abs=1e-6)
    assert added["norm"][0] == pytest.approx(layers[1].weights["norm"][0] + differences[1].norms["norm"].weight)


def test_they_survive_their_file_nearly(differences, tmp_path):
    save_differences(differences, tmp_path / "learned.gz")
    for kept, wanted in zip(load_differences(tmp_path / "learned.gz"), differences, strict=True):
        assert np.array_equal(kept.kept, wanted.kept)
        for name, one in wanted.products.items():
            apart = kept.products[name].left @ kept.products[name].right - one.left @ one.right
            assert np.linalg.norm(apart) < 0.2 * np.linalg.norm(one.left @ one.right)
            assert kept.products[name].bias == pytest.approx(one.bias, abs=0.02)
        for name, norm in wanted.norms.items():
            assert kept.norms[name].weight == pytest.approx(norm.weight, abs=0.02)
    assert [path.name for path in tmp_path.iterdir()] == ["learned.gz"]


def test_a_number_of_a_rank_takes_half_a_byte(layers, tmp_path):
    sizes = []
    for rank in (10, 50):
        save_differences([random_difference(layers[0], rank=rank)], tmp_path / "learned.gz")
        sizes.append((tmp_path / "learned.gz").stat().st_size)
    numbers = 40 * sum(sum(layers[0].weights[name][0].shape) for name in PRODUCTS)
    assert sizes[1] - sizes[0] < 0.6 * numbers  # with their scales


def test_those_of_other_layers_are_refused(layers, differences):
    with pytest.raises(OtherWeights, match="to 1 layers"):
        add_differences(layers, differences[:1])
    others = [replace(layer, kept=layer.kept[::-1]) for layer in layers]
    with pytest.raises(OtherWeights, match="other neurons"):
        add_differences(others, differences)
    wider = {**layers[0].weights, "up": tuple(np.repeat(part, 2, 0) for part in layers[0].weights["up"])}
    with pytest.raises(OtherWeights, match="another size"):
        add_differences([replace(layers[0], weights=wider), layers[1]], differences)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "learned.gz"
    broken = gzip.compress(b"whatever")[:10] + b"\xff" * 20
    for content in (b"no gzip", broken, gzip.compress(b"no safetensors"), gzip.compress(save({"layer1": np.zeros(3)}))):
        path.write_bytes(content)
        with pytest.raises(OtherWeights, match="has no differences"):
            load_differences(path)
    with pytest.raises(FileNotFoundError):
        load_differences(tmp_path / "none.gz")


def test_the_packaged_ones_are_small_and_minilms():
    path = text_family.profile_path("minilm")
    assert path is not None
    differences = text_family.differences_beside(path)
    assert differences.stat().st_size < 900_000  # all weights together have a limit of their own
    learned = load_differences(differences)
    assert [len(layer.kept) for layer in learned] == [1216] * 6
    assert all(layer.products["up"].left.shape[0] == 1216 for layer in learned)
