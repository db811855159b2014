import gzip

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.zoo import kept_lean as module
from models.zoo import text_data
from models.zoo.bert import Bert
from models.zoo.kept_lean import kept_lean
from models.zoo.lean_differences import save_differences
from models.zoo.text_profile import OtherWeights
from tests.models.zoo.random_bert import WORDS, write_random_bert
from tests.models.zoo.random_differences import random_difference
from tests.models.zoo.random_encoders import write_encoder


@pytest.fixture(autouse=True)
def _texts(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    path = tmp_path / "texts.txt.gz"
    write(path, [" ".join(random.choice(WORDS, random.integers(5, 20))) for _ in range(40)])
    monkeypatch.setattr(text_data, "TEXTS", path)


def write(path, texts):
    path.write_bytes(gzip.compress("\n".join(texts).encode()))


@pytest.fixture
def fits(monkeypatch):
    """How often was fitted."""
    counted = []

    def fit(*arguments, **named):
        counted.append(1)
        return fit_lean(*arguments, **named)

    fit_lean = module.fit_lean
    monkeypatch.setattr(module, "fit_lean", fit)
    return counted


def loaded(folder, kept, digest=None, differences=None):
    return kept_lean(folder, digest or Bert(folder).digest, kept, lambda done: None, differences)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_two_loads_are_the_same_and_fit_once(tmp_path, kind, fits):
    folder, kept = write_encoder(tmp_path / kind, kind), tmp_path / "home" / "converted" / "lean.safetensors"
    first, second = loaded(folder, kept), loaded(folder, kept)
    assert len(fits) == 1
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.weights[name][0], other.weights[name][0]) for name in one.weights)
        assert one.neuron_saliency == other.neuron_saliency
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    Bert(folder, second)


def test_what_is_torn_or_of_other_texts_or_weights_is_made_anew(tmp_path, fits):
    folder, kept = write_random_bert(tmp_path / "bert"), tmp_path / "lean.safetensors"
    loaded(folder, kept)
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    loaded(folder, kept)
    assert kept.read_bytes() == whole
    write(text_data.TEXTS, [*text_data.texts(), "the whale sank the ship"])
    loaded(folder, kept)
    loaded(write_random_bert(tmp_path / "other", seed=1), kept)
    assert len(fits) == 4
    loaded(tmp_path / "other", kept)
    assert len(fits) == 4


def test_what_tuning_learned_is_added_to_layers_with_the_same_neurons(tmp_path, fits):
    folder, kept, file = write_random_bert(tmp_path / "bert"), tmp_path / "lean.safetensors", tmp_path / "learned"
    fitted = loaded(folder, kept)
    for number in range(2):
        others = [np.setdiff1d(np.arange(160), layer.kept)[:1] for layer in fitted]
        neurons = [np.sort(np.append(one, layer.kept[1:])) for one, layer in zip(others, fitted, strict=True)]
        learned = [random_difference(layer, number, kept) for layer, kept in zip(fitted, neurons, strict=True)]
        save_differences(learned, file)
        tuned = loaded(folder, kept, differences=file)
        assert len(fits) == 2 + number
        assert all(np.array_equal(layer.kept, wanted) for layer, wanted in zip(tuned, neurons, strict=True))
        assert np.abs(tuned[0].weights["norm"][0] - fitted[0].weights["norm"][0]).max() > 0.1
    loaded(folder, kept, differences=file)
    assert len(fits) == 3


def test_other_weights_than_the_profiles_are_refused(tmp_path):
    with pytest.raises(OtherWeights, match="other weights"):
        loaded(write_random_bert(tmp_path / "bert"), tmp_path / "lean.safetensors", "0" * 64)


def test_where_it_cannot_be_kept_it_is_served_all_the_same(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert len(loaded(write_random_bert(tmp_path / "bert"), tmp_path / "file" / "lean.safetensors")) == 2
    assert "fits them again" in caplog.text


def test_texts_that_come_with_sluice_are_not_those_that_are_measured_on(monkeypatch):
    monkeypatch.undo()
    texts = text_data.texts()
    assert len(texts) > 300
    runs = {run for line in text_data.sample() for run in _runs(line)}
    assert not any(run in runs for text in texts for run in _runs(text))


def _runs(text, length=8):
    words = text.lower().split()
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
