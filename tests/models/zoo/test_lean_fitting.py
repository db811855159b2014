from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.lean_fitting import LeanRecipe, Moments, fit_lean, keep_neurons
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_bert import WORDS, write_random_bert


@pytest.fixture(scope="module")
def sequences():
    random = np.random.default_rng(0)
    return [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(60)]


def closed(folder_of, parts, gate):
    encoder = Bert(folder_of, parts)
    return encoder, {name: 1e9 for name in encoder.channel_gates if name.endswith(gate)}


def test_lean_layers_that_keep_all_are_the_dense_ones(tmp_path, sequences):
    folder = write_random_bert(tmp_path)
    parts = fit_lean(Bert(folder), sequences, recipe=LeanRecipe(scores=(1, 1), neurons=1))
    lean = Bert(folder, parts)
    wanted = lean(sequences[0].ids, GateContext(0.0)).states
    found = lean(sequences[0].ids, GateContext(0.0), dict.fromkeys(lean.channel_gates, 1e9)).states
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert all(saliency < 1e-6 for saliency in lean.channel_gates.values())


def test_the_last_layers_score_with_the_fewest_channels(tmp_path, sequences):
    encoder = Bert(write_random_bert(tmp_path))
    parts = fit_lean(encoder, sequences, recipe=LeanRecipe(scores=(0.75, 0.25)))
    size = encoder.shape.head_size
    assert [len(part.weights["key"][0]) / encoder.shape.heads / size for part in parts] == [0.75, 0.25]


@pytest.mark.parametrize("gate", ["scores", "neurons"])
def test_a_gate_leaves_out_what_is_lost_least(tmp_path, sequences, gate):
    folder = write_random_bert(tmp_path)
    encoder, thresholds = closed(folder, fit_lean(Bert(folder), sequences), gate)
    context = GateContext(0.0)
    found = encoder(sequences[0].ids, context, thresholds).mean
    wanted = encoder(sequences[0].ids, GateContext(0.0)).mean
    assert 0.9 < found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) < 1
    assert context.macs_skipped > 0
    assert {name for name, work in context.layers.items() if work.skipped} == set(thresholds)


def test_neurons_that_others_stand_in_for_are_left_out():
    random = np.random.default_rng(0)
    neurons = random.standard_normal((500, 20))
    neurons[:, 10:] = neurons[:, :10] @ random.standard_normal((10, 10)) * 0.1
    kept = keep_neurons(np.cov(neurons.T), random.standard_normal((8, 20)), 10)
    assert np.linalg.matrix_rank(neurons[:, kept], tol=1e-6) == 10


def test_neurons_and_signs_are_the_same_for_the_same_layers(tmp_path, sequences):
    encoder = Bert(write_random_bert(tmp_path))
    first = fit_lean(encoder, sequences)
    kept = [np.setdiff1d(np.arange(160), layer.kept) for layer in first]
    others = fit_lean(encoder, sequences[::-1], kept=kept)
    for one, other, wanted in zip(first, others, kept, strict=True):
        assert np.array_equal(other.kept, wanted)
        assert len(other.weights["up"][0]) == len(wanted)
        for name in ("query", "key"):
            assert np.sum(one.weights[name][0] * other.weights[name][0], 1).min() > 0


def test_what_stays_stands_in_for_what_is_left_out(tmp_path, sequences):
    folder = write_random_bert(tmp_path)
    encoder = Bert(folder)
    parts = fit_lean(encoder, sequences)
    apart = []
    for part in (parts[0], replace(parts[0], weights=cut(encoder.dense_weights(0), parts[0].weights))):
        lean = Bert(folder, [part, *parts[1:]])
        states = [
            lean(tokens.ids, GateContext(0.0), {"layer1.neurons": 9.0}).states
            - lean(tokens.ids, GateContext(0.0)).states
            for tokens in sequences
        ]
        apart.append(float(np.square(np.concatenate(states)).sum()))
    assert apart[0] < 0.8 * apart[1]


def cut(dense, lean):
    """A lean layer whose neurons are merely left out."""
    kept = [int(np.flatnonzero((dense["up"][0] == row).all(1))[0]) for row in lean["up"][0]]
    return {**lean, "down": (np.ascontiguousarray(dense["down"][0][:, kept]), dense["down"][1])}


def test_moments_are_those_of_all_rows():
    random = np.random.default_rng(0)
    rows = random.standard_normal((90, 5)).astype(np.float32)
    moments = Moments(5)
    for part in np.split(rows, 3):
        moments.add(part)
    assert moments.covariance == pytest.approx(np.cov(rows.T, bias=True), abs=1e-5)
    assert moments.means == pytest.approx(rows.mean(0), abs=1e-6)
