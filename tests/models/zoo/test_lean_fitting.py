import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.lean_fitting import LeanRecipe, fit_lean, keep_neurons
from models.zoo.lean_parts import load_lean, rounded, save_lean
from models.zoo.text_profile import OtherWeights
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_bert import FEED_FORWARD, WORDS, write_random_bert


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Bert(write_random_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def sequences():
    random = np.random.default_rng(0)
    return [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(60)]


def closed(folder_of, parts, gate):
    encoder = Bert(folder_of, parts)
    return encoder, {name: 1e9 for name in encoder.channel_gates if name.endswith(gate)}


def test_lean_layers_that_keep_all_are_the_dense_ones(tmp_path, sequences):
    folder = write_random_bert(tmp_path)
    parts = fit_lean(Bert(folder), sequences, recipe=LeanRecipe(scores=1, neurons=1))
    lean = Bert(folder, parts)
    wanted = lean(sequences[0].ids, GateContext(0.0)).states
    found = lean(sequences[0].ids, GateContext(0.0), dict.fromkeys(lean.channel_gates, 1e9)).states
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert all(saliency < 1e-6 for saliency in lean.channel_gates.values())


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


def test_parts_survive_their_file(encoder, sequences, tmp_path):
    parts = fit_lean(encoder, sequences, recipe=LeanRecipe(rank=4))
    save_lean(parts, tmp_path / "lean.safetensors")
    for kept, wanted, exact in zip(load_lean(tmp_path / "lean.safetensors"), rounded(parts), parts, strict=True):
        assert np.array_equal(kept.neurons, exact.neurons)
        assert np.array_equal(kept.queries, wanted.queries)
        assert kept.queries == pytest.approx(exact.queries, abs=0.01 * float(np.abs(exact.queries).max()))
        assert len(kept.neurons) < FEED_FORWARD


def test_another_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"layer1": np.zeros(3, np.float32)}, tmp_path / "means.safetensors")
    with pytest.raises(OtherWeights, match="has no tensor"):
        load_lean(tmp_path / "means.safetensors")
