"""Tuning, on an encoder so small that it takes a moment."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
pytest.importorskip("torch")

import torch

from models.model import GateContext
from models.zoo.bert import DENSE, Bert
from models.zoo.lean_differences import add_differences
from models.zoo.lean_fitting import LeanRecipe, fit_lean
from models.zoo.lean_layers import load_lean, save_lean
from models.zoo.text_calibration import calibrate
from models.zoo.text_embeddings import TextEmbedder
from models.zoo.text_profile import OtherWeights
from models.zoo.text_reader import Tokens
from models.zoo.text_student import TorchLayer
from models.zoo.text_tuning import POOLINGS, TuningRecipe, draw, rate, second_moment, tune
from tests.models.zoo.random_bert import WORDS, write_random_bert

pytestmark = pytest.mark.usefixtures("one_thread")

LEAN = LeanRecipe(neurons=0.5)
RECIPE = TuningRecipe(steps=12, positions=64, rate=1e-3, rank=8, joined=0.2)
CLOSED = dict.fromkeys(["layer1.neurons", "layer2.scores", "layer2.neurons"], 1e9)
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
def fitted(folder, sequences):
    return fit_lean(Bert(folder), sequences[:40], recipe=LEAN)


@pytest.fixture(scope="module")
def tuned(folder, sequences, fitted, tmp_path_factory):
    seen = []
    learned = tune(Bert(folder), ("mean",), sequences, fitted, RECIPE, seen.append)
    assert [step.number for step in seen] == list(range(1, 13))
    parts = add_differences(fitted, learned)
    path = tmp_path_factory.mktemp("parts") / "tuned.safetensors"
    save_lean(parts, path)
    return load_lean(path)


def in_order(sequences):
    ordered = sorted(sequences, key=len)
    return ordered, np.array([len(tokens) for tokens in ordered])


def cosine(encoder, sequences, thresholds):
    found = []
    for tokens in sequences:
        one, other = (encoder(tokens.ids, GateContext(0.0), at).mean for at in (thresholds, DENSE))
        found.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    return float(np.mean(found))


def test_level_0_is_the_dense_encoder(folder, sequences, tuned):
    plain, both = Bert(folder), Bert(folder, tuned)
    ids = sequences[0].ids
    for thresholds in (DENSE, dict.fromkeys(CLOSED, 0.0)):
        context = GateContext(0.0)
        assert np.array_equal(both(ids, context, thresholds).states, plain(ids, GateContext(0.0)).states)
        assert context.macs_skipped == 0
    assert set(both.channel_gates) == set(CLOSED)


def test_tuning_brings_gated_embeddings_nearer_to_the_dense_ones(folder, sequences, fitted):
    encoder = Bert(folder)
    # Random embeddings are all alike, so that any change of one changes its likeness to all.
    recipe = TuningRecipe(steps=60, positions=96, rate=4e-3, rank=8, joined=0, mixed=0, alike=10)
    learned = tune(encoder, ("mean",), sequences, fitted, recipe, lambda step: None)
    before, after = (
        cosine(Bert(folder, parts), sequences, CLOSED) for parts in (fitted, add_differences(fitted, learned))
    )
    assert 1 - after < 0.9 * (1 - before)


def test_what_has_learned_nothing_yet_is_what_was_fitted(folder, sequences, fitted):
    learned = tune(Bert(folder), ("mean",), sequences, fitted, TuningRecipe(steps=0), lambda step: None)
    for one, other in zip(add_differences(fitted, learned), fitted, strict=True):
        assert all(np.array_equal(one.weights[name][0], other.weights[name][0]) for name in other.weights)


def test_an_interrupted_tuning_goes_on_where_it_was(folder, sequences, fitted, tmp_path):
    encoder = Bert(folder)
    recipe = TuningRecipe(steps=8, positions=24, every=5)

    class Interrupted(Exception):
        pass

    def interrupt(step):
        if step.number == 7:
            raise Interrupted

    def tuned_on(texts, report, checkpoint=None):
        return tune(encoder, ("mean",), texts, fitted, recipe, report, checkpoint)

    with pytest.raises(Interrupted):
        tuned_on(sequences[:20], interrupt, tmp_path / "tuning.pt")
    numbers = []

    def report(step):
        numbers.append(step.number)

    resumed = tuned_on(sequences[:20], report, tmp_path / "tuning.pt")
    assert numbers[0] == 6
    straight = tuned_on(sequences[:20], lambda step: None)
    for one, other in zip(resumed, straight, strict=True):
        assert one.norms["norm"].weight == pytest.approx(other.norms["norm"].weight, abs=1e-5)
    numbers.clear()
    tuned_on(sequences[:19], report, tmp_path / "tuning.pt")
    assert numbers[0] == 1  # the checkpoint is of other texts


def test_a_further_round_begins_with_what_was_learned(folder, sequences, fitted):
    encoder = Bert(folder)
    learned = tune(encoder, ("mean",), sequences, fitted, RECIPE, lambda step: None)
    more = TuningRecipe(steps=0, rank=RECIPE.rank + 3)
    again = tune(encoder, ("mean",), sequences, fitted, more, lambda step: None, begun=learned)
    for one, other in zip(*(add_differences(fitted, some) for some in (again, learned)), strict=True):
        for name, (weight, bias) in other.weights.items():
            assert one.weights[name][0] == pytest.approx(weight, abs=1e-6)
            assert one.weights[name][1] == pytest.approx(bias, abs=1e-6)
    with pytest.raises(ValueError, match="has 8 ranks or another size, of 4 here"):
        tune(encoder, ("mean",), sequences, fitted, TuningRecipe(rank=4), lambda step: None, begun=learned)
    with pytest.raises(OtherWeights, match="other neurons"):
        tune(encoder, ("mean",), sequences, fitted[::-1], RECIPE, lambda step: None, begun=learned)


def test_a_further_round_learns_at_the_rate_behind_the_rounds_before():
    recipe = TuningRecipe(steps=200, rounds=2, rate=1.0)
    further = recipe.further()
    assert rate(49, further) == pytest.approx(0.25 * rate(49, replace(recipe, rounds=1)))
    assert rate(199, further) < rate(100, further) < rate(40, further)


def test_each_round_begins_at_half_of_the_rate_of_the_one_before():
    recipe = TuningRecipe(steps=1000, rounds=2, rate=0.8)
    rates = [rate(step, recipe) for step in range(1000)]
    assert max(rates[:500]) == pytest.approx(0.8, rel=0.02)
    assert max(rates[500:]) == pytest.approx(0.4, rel=0.02)
    assert rates[499] < 0.03 > rates[500]
    assert rates[30:500] == sorted(rates[30:500], reverse=True)
    assert rate(0, TuningRecipe(steps=1)) > 0


def test_a_change_of_likeness_is_a_form_of_the_second_moment(folder, sequences):
    encoder = Bert(folder)
    teacher = [TorchLayer(encoder, encoder.dense_weights(number)) for number in range(encoder.shape.layers)]
    recipe = TuningRecipe(longest=7, others=40)
    texts = [tokens for tokens in sequences if len(tokens) == 7]
    found = second_moment(encoder, teacher, ("mean",), texts, recipe).numpy()
    dense = np.stack([encoder(tokens.ids, GateContext(0.0)).mean for tokens in texts])
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    change = np.random.default_rng(0).standard_normal(dense.shape[1]).astype(np.float32)
    assert change @ found @ change == pytest.approx(np.square(dense @ change).mean(), rel=0.03)


def test_a_batch_is_of_one_length(sequences):
    ordered = in_order(sequences)
    seen, longest = set(), max(map(len, sequences))
    for seed in range(60):
        recipe = TuningRecipe(positions=96, short=0.5, short_lengths=(3, 5))
        texts = draw(*ordered, recipe, np.random.default_rng(seed))
        assert len({len(tokens) for tokens in texts}) == 1
        assert len(texts) == min(64, max(4, 96 // len(texts[0]))) or len(texts[0]) < longest
        ends = {tuple(tokens.ids[-1:]) for tokens in sequences}
        assert all(tuple(tokens.ids[-1:]) in ends for tokens in texts)
        seen.add(len(texts[0]))
    assert min(seen) == 3
    assert max(seen) > 12


def test_texts_are_cut_to_the_longest(sequences):
    recipe = TuningRecipe(longest=7, short=0)
    for seed in range(8):
        assert len(draw(*in_order(sequences), recipe, np.random.default_rng(seed))[0]) <= 7


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_rows_of_no_position_are_not_pooled(pooling):
    x = torch.randn(2, 3, 4)
    pooled = POOLINGS[pooling](x, torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]))
    alone = POOLINGS[pooling](x[:1, :2], torch.tensor([[1.0, 2.0]]))
    assert pooled[:1].numpy() == pytest.approx(alone.numpy(), abs=1e-6)


def test_a_tuned_profile_goes_from_dense_to_the_least_quality(folder, texts, tuned):
    profile, _ = calibrate("text", folder, texts[:40], texts[40:], lambda done: None, lean=tuned, tuned=True, points=5)
    first, *rest = profile.points
    assert (first.macs_ratio, first.agreement) == (1, 1)
    assert all(value == 0 for value in first.thresholds.values())
    assert rest[-1].macs_ratio < 0.9
    model = TextEmbedder("text", folder, profile, tuned)
    assert model.profile.points[-1].agreement < 1


def test_parts_of_another_encoder_are_refused(folder, tuned):
    with pytest.raises(ValueError, match="1 lean layers"):
        Bert(folder, tuned[:1])
