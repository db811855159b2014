"""Tuning, on an encoder so small that it takes a moment."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
pytest.importorskip("torch")

import torch

from models import kernels
from models.model import GateContext
from models.zoo import text_tuning
from models.zoo.bert import DENSE, Bert
from models.zoo.lean_fitting import LeanRecipe
from models.zoo.lean_layers import load_lean, save_lean
from models.zoo.text_calibration import calibrate
from models.zoo.text_embeddings import TextEmbedder
from models.zoo.text_reader import Tokens
from models.zoo.text_tuning import StudentLayer, TuningRecipe, join, tune
from tests.models.zoo.random_bert import WORDS, write_random_bert

pytestmark = pytest.mark.usefixtures("one_thread")

LEAN = LeanRecipe(neurons=0.5)
RECIPE = TuningRecipe(steps=12, batch=6, rate=1e-3, joined=0.2, fitted_on=40, lean=LEAN)
CLOSED = {f"layer{layer}.{gate}": 1e9 for layer in (1, 2) for gate in ("scores", "neurons")}
"""Thresholds at which both layers are lean."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(4, 20))) for _ in range(60)]


@pytest.fixture(scope="module")
def sequences(folder, texts):
    model = TextEmbedder("text", folder)
    return [Tokens(model.tokens(text.encode())) for text in texts]


@pytest.fixture(scope="module")
def tuned(folder, sequences, tmp_path_factory):
    seen = []
    parts = tune(Bert(folder), ("mean",), sequences, RECIPE, seen.append)
    assert [step.number for step in seen if step.phase == "dense"] == list(range(1, 61))
    assert [step.number for step in seen if step.phase == "tuning"] == list(range(1, 13))
    path = tmp_path_factory.mktemp("parts") / "tuned.safetensors"
    save_lean(parts, path)
    return load_lean(path)


def cosine(encoder, sequences, thresholds):
    found = []
    for tokens in sequences:
        one, other = (encoder(tokens.ids, GateContext(0.0), at).mean for at in (thresholds, DENSE))
        found.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    return float(np.mean(found))


def test_the_served_layers_are_the_students(folder, sequences, tuned, monkeypatch):
    encoder = Bert(folder, tuned)
    ids = sequences[0].ids
    x = torch.from_numpy(encoder.embed(ids))
    monkeypatch.setattr(text_tuning.kernels, "instruction_set", lambda datatype: "portable")
    with torch.no_grad():
        for part in tuned:
            layer = StudentLayer(encoder, part)
            x = layer.feed_forward(layer.attend(x, torch.ones(len(ids), dtype=torch.int64), [len(ids)]))
    context = GateContext(0.0)
    states = encoder(ids, context, CLOSED).states
    assert np.abs(states - x.numpy()).max() < 1e-3 * np.abs(states).max()
    assert context.layers["layer1.neurons"].skipped == 80
    assert context.macs_skipped > 0


def test_level_0_is_the_dense_encoder(folder, sequences, tuned):
    plain, both = Bert(folder), Bert(folder, tuned)
    ids = sequences[0].ids
    for thresholds in (DENSE, dict.fromkeys(CLOSED, 0.0)):
        context = GateContext(0.0)
        assert np.array_equal(both(ids, context, thresholds).states, plain(ids, GateContext(0.0)).states)
        assert context.macs_skipped == 0
    assert set(both.channel_gates) == set(CLOSED)


def test_tuning_brings_gated_embeddings_nearer_to_the_dense_ones(folder, sequences):
    encoder = Bert(folder)
    half = TuningRecipe(steps=36, batch=8, rate=1e-3, joined=0, fitted_on=40, lean=LEAN)
    begun = TuningRecipe(steps=0, fitted_on=40, lean=LEAN)
    fitted, learned = (tune(encoder, ("mean",), sequences, recipe, lambda step: None) for recipe in (begun, half))
    before, after = (cosine(Bert(folder, parts), sequences, CLOSED) for parts in (fitted, learned))
    assert 1 - after < 0.9 * (1 - before)


def test_an_interrupted_tuning_goes_on_where_it_was(folder, sequences, tmp_path):
    encoder = Bert(folder)
    recipe = TuningRecipe(steps=8, batch=2, fitted_on=20, every=5, lean=LEAN)

    class Interrupted(Exception):
        pass

    def interrupt(step):
        if step.phase == "tuning" and step.number == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(encoder, ("mean",), sequences[:20], recipe, interrupt, tmp_path / "tuning.pt")
    numbers = []

    def report(step):
        if step.phase == "tuning":
            numbers.append(step.number)

    resumed = tune(encoder, ("mean",), sequences[:20], recipe, report, tmp_path / "tuning.pt")
    assert numbers[0] == 6
    straight = tune(encoder, ("mean",), sequences[:20], recipe, lambda step: None)
    for one, other in zip(resumed, straight, strict=True):
        assert one.weights["norm"][0] == pytest.approx(other.weights["norm"][0], abs=1e-5)
    numbers.clear()
    tune(encoder, ("mean",), sequences[:19], recipe, report, tmp_path / "tuning.pt")
    assert numbers[0] == 1  # the checkpoint is of other texts


def test_joining_is_the_kernels():
    random = np.random.default_rng(0)
    x = random.standard_normal((9, 16), np.float32)
    x[4] = x[3] + 0.1 * x[4]
    sizes = np.array([1, 2, 1, 1, 3, 1, 1, 1, 1], np.float32)
    states, counts = join(torch.from_numpy(x), torch.from_numpy(sizes).long(), 0.3)
    wanted, wanted_counts = kernels.merge_positions(x, sizes, 0.3)
    assert len(wanted) < 9
    assert states.numpy() == pytest.approx(wanted, abs=1e-5)
    assert counts.tolist() == wanted_counts.tolist()


def test_a_tuned_profile_goes_from_dense_to_the_least_quality(folder, texts, tuned):
    profile, _ = calibrate("text", folder, texts[:40], texts[40:], lambda done: None, lean=tuned, points=5)
    first, *rest = profile.points
    assert (first.macs_ratio, first.agreement) == (1, 1)
    assert all(value == 0 for value in first.thresholds.values())
    assert rest[-1].macs_ratio < 0.9
    model = TextEmbedder("text", folder, profile, tuned)
    assert model.profile.points[-1].agreement < 1


def test_parts_of_another_encoder_are_refused(folder, tuned):
    with pytest.raises(ValueError, match="1 lean layers"):
        Bert(folder, tuned[:1])
