from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.encoder_heads import FittedHeads, HeadGate, HeadMoments
from models.zoo.lean_fitting import fit_lean
from models.zoo.lean_layers import load_lean, save_lean
from models.zoo.text_profile import OtherWeights
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_bert import WORDS, write_random_bert

HEADS, HIDDEN = 4, 32


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = write_random_bert(tmp_path_factory.mktemp("bert"))
    random = np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(60)]
    return folder, fit_lean(Bert(folder), sequences), sequences


def moments_of(texts, weight):
    """Texts of a few positions, whose head gives more where the first channel of the input is high."""
    random, moments = np.random.default_rng(1), HeadMoments(weight, HEADS)
    size, lost = HIDDEN // HEADS, []
    means = random.standard_normal(HIDDEN).astype(np.float32)
    for _ in range(texts):
        n = random.integers(3, 9)
        x = random.standard_normal((n, HIDDEN)).astype(np.float32) * np.float32(0.1)
        x[:, :HEADS] += random.standard_normal(HEADS).astype(np.float32)
        apart = random.standard_normal((n, HIDDEN)).astype(np.float32) * np.repeat(np.exp(x[:, :HEADS].mean(0)), size)
        multipliers = np.full((n, 1), 2, np.float32)
        moments.add(x, means + apart, multipliers, np.array([0]))
        behind = (apart.reshape(n, HEADS, size)[..., None] * weight.T.reshape(HEADS, size, HIDDEN)).sum(2)
        lost.append(4 * np.square(behind).sum(2).mean(0) / HIDDEN)
    return moments, means, np.array(lost)


def test_the_mean_position_tells_what_a_head_adds():
    weight = np.random.default_rng(0).standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
    moments, means, lost = moments_of(2000, weight)
    found = moments.fitted()
    assert found.means == pytest.approx(means, abs=0.2)
    inputs = np.concatenate(moments.inputs)
    foretold = np.array([found.saliency(x[None]) for x in inputs])
    apart = np.log(foretold) - np.log(lost)
    assert (apart.var(0) < 0.4 * np.log(lost).var(0)).all()
    assert np.abs(apart.mean(0)).max() < 0.1


def test_few_texts_hardly_tell_one_from_another():
    moments, _, lost = moments_of(4, np.eye(HIDDEN, dtype=np.float32))
    found, inputs = moments.fitted(), np.concatenate(moments.inputs)
    foretold = np.log([found.saliency(x[None]) for x in inputs])
    assert (np.ptp(foretold, 0) < 0.5 * np.ptp(np.log(lost), 0)).all()
    assert np.isfinite(foretold).all()


def test_means_stand_for_heads_that_are_not_active():
    random = np.random.default_rng(0)
    weight, bias, means = (random.standard_normal(shape).astype("f4") for shape in ((6, 6), 6, 6))
    logarithms = np.log(np.array([0.1, 0.2, 0.3], np.float32))
    gate = HeadGate.of(FittedHeads(means, np.zeros((3, 6), np.float32), logarithms), weight, bias)
    x = np.zeros((2, 6), np.float32)
    assert gate(x, 0.0).ids is None
    active = gate(x, 0.15)
    assert active.ids is not None
    assert active.ids.tolist() == [1, 2]
    assert active.bias == pytest.approx(bias + weight[:, :2] @ means[:2], abs=1e-5)
    assert gate(x, 0.5).bias == pytest.approx(bias + weight @ means, abs=1e-5)


def between_two_heads(encoder, ids):
    """A threshold under which one of two heads of the second layer is active."""
    thresholds = np.geomspace(1e-6, 1, 400)
    for threshold in thresholds:
        context = GateContext(0.0)
        encoder(ids, context, {"layer2.heads": threshold})
        if context.layers["layer2.heads"].skipped:
            return threshold
    raise AssertionError("both are left out at once")


@pytest.mark.parametrize("skipped", [1, 2])
def test_a_closed_gate_skips_heads_and_what_they_take(fitted, skipped):
    folder, parts, sequences = fitted
    encoder = Bert(folder, parts)
    ids, context = sequences[0].ids, GateContext(0.0)
    threshold = 1e9 if skipped == encoder.shape.heads else between_two_heads(encoder, ids)
    found = encoder(ids, context, {"layer2.heads": threshold}).states
    work, shape = context.layers["layer2.heads"], encoder.shape
    assert (work.channels, context.layers["layer1.heads"].skipped) == (shape.heads, 0)
    assert work.skipped == skipped
    alike = shape.attention_macs(len(ids), len(ids), shape.head_size, work.skipped) - shape.heads_gate_macs()
    assert context.macs_skipped == alike
    wanted = encoder(ids, GateContext(0.0)).states
    assert not np.array_equal(found, wanted)


def test_less_salient_heads_are_missed_less(fitted):
    folder, parts, sequences = fitted
    encoder = Bert(folder, parts)

    def lost(layers):
        gated = Bert(folder, layers)
        apart = [
            gated(tokens.ids, GateContext(0.0), {"layer1.heads": 0.5, "layer2.heads": 0.5}).states
            - encoder(tokens.ids, GateContext(0.0)).states
            for tokens in sequences
        ]
        return float(np.square(np.concatenate(apart)).sum())

    def with_order(sign):
        """A layer of which half of the heads is active: the most salient ones, or, of the other sign, the least."""
        layers = []
        for part in parts:
            order = np.argsort(np.argsort(sign * part.heads.bias))
            logarithms = np.where(order >= len(order) // 2, 0.0, -9.0).astype(np.float32)
            heads = replace(part.heads, weights=np.zeros_like(part.heads.weights), bias=logarithms)
            layers.append(replace(part, heads=heads))
        return layers

    assert lost(with_order(1)) < lost(with_order(-1))


def test_heads_survive_their_file_and_layers_without_them_are_read(fitted, tmp_path):
    folder, parts, _ = fitted
    save_lean(parts, tmp_path / "lean.safetensors")
    for kept, wanted in zip(load_lean(tmp_path / "lean.safetensors"), parts, strict=True):
        for name in ("means", "weights", "bias"):
            assert np.array_equal(getattr(kept.heads, name), getattr(wanted.heads, name))
    save_lean([replace(part, heads=None) for part in parts], tmp_path / "earlier.safetensors")
    earlier = load_lean(tmp_path / "earlier.safetensors")
    assert [part.heads for part in earlier] == [None, None]
    assert Bert(folder, earlier).head_gates == ()
    assert Bert(folder, parts).head_gates == ("layer1.heads", "layer2.heads")


def test_heads_of_another_layer_are_refused(fitted):
    folder, parts, _ = fitted
    for name in ("means", "weights", "bias"):
        other = replace(parts[0].heads, **{name: getattr(parts[0].heads, name)[:1]})
        with pytest.raises(OtherWeights, match=f"the {name} of the heads are"):
            Bert(folder, [replace(parts[0], heads=other), parts[1]])
