"""The gate on heads, alone and in a small random Whisper: it is the dense model with some heads at their means."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models import kernels
from models.model import GateContext
from models.zoo.whisper import HEADS_GATE, Whisper
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_heads import CalibratedHeads, HeadGate, ranked
from models.zoo.whisper_words import Calibrated
from tests.models.zoo.random_whisper import POSITIONS, write_random_whisper

FRAMES = 2 * POSITIONS
TEXT = [16, 21, 4, 7]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return read_whisper(write_random_whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="module")
def spectrum(files):
    return np.random.default_rng(0).standard_normal((FRAMES, files.shape.mels), dtype=np.float32)


def heads_of(shape):
    return [shape.encoder_heads] * shape.encoder_layers + [shape.decoder_heads] * (2 * shape.decoder_layers)


def calibrated(shape, absent, seed=1):
    """Heads by (attention, number) that are of no use, and means for all."""
    random, found = np.random.default_rng(seed), []
    for attention, heads in enumerate(heads_of(shape)):
        saliency = np.array([(attention, head) not in absent for head in range(heads)], np.float32)
        found.append(CalibratedHeads(random.standard_normal(shape.hidden).astype(np.float32), saliency))
    return found


def heard_and_said(model, spectrum, thresholds):
    context = GateContext(0.0)
    heard = model.encode(spectrum, FRAMES, context, thresholds)
    logits = model.score(TEXT, model.listen(heard, context, thresholds), context, thresholds)
    return heard.states, logits, context


def without(files, heads, absent):
    """The tensors of the dense model that says the same."""
    tensors, model = dict(files.tensors), Whisper(files.shape, files.tensors)
    for attention, head in absent:
        name = f"{model.attentions[attention]}.out_proj"
        weight, bias = tensors[f"{name}.weight"].copy(), tensors[f"{name}.bias"]
        size = files.shape.hidden // heads_of(files.shape)[attention]
        own = slice(head * size, (head + 1) * size)
        tensors[f"{name}.bias"] = bias + weight[:, own] @ heads[attention].means[own]
        weight[:, own] = 0
        tensors[f"{name}.weight"] = weight
    return tensors


@pytest.mark.parametrize(
    "absent",
    [
        {(0, 1)},
        {(2, 0)},
        {(3, 1)},
        {(0, 0), (1, 1), (2, 1), (3, 0), (5, 1)},
        {(0, 0), (0, 1), (2, 0), (2, 1), (3, 0), (3, 1)},
    ],
)
def test_heads_that_are_absent_contribute_their_means(files, spectrum, absent):
    heads = calibrated(files.shape, absent)
    model = Whisper(files.shape, files.tensors).with_heads(heads)
    states, logits, context = heard_and_said(model, spectrum, {HEADS_GATE: 0.5})
    wanted, wanted_logits, dense = heard_and_said(Whisper(files.shape, without(files, heads, absent)), spectrum, {})
    np.testing.assert_allclose(states, wanted, atol=1e-4)
    np.testing.assert_allclose(logits, wanted_logits, atol=1e-3)
    assert context.layers[HEADS_GATE].skipped == len(absent)
    assert context.layers[HEADS_GATE].channels == sum(heads_of(files.shape))
    assert context.macs == dense.macs
    assert context.macs_skipped > 0


def test_without_a_threshold_all_heads_are_there(files, spectrum):
    model = Whisper(files.shape, files.tensors)
    gated = model.with_heads(calibrated(files.shape, {(0, 1), (2, 0)}))
    for one, other in zip(
        heard_and_said(gated, spectrum, {})[:2], heard_and_said(model, spectrum, {})[:2], strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_calibration_is_kept_with_its_heads(files, tmp_path):
    shape = files.shape
    means = [np.zeros(shape.encoder_feed_forward, np.float32)] * (shape.encoder_layers + shape.decoder_layers)
    preview = np.ones((shape.hidden, 2), np.float32)
    Calibrated(means, preview, preview, calibrated(shape, {(0, 1)})).save(tmp_path / "with")
    Calibrated(means, preview, preview).save(tmp_path / "without")
    found = Calibrated.load(tmp_path / "with")
    assert len(found.means) == len(means)
    for one, other in zip(found.heads, calibrated(shape, {(0, 1)}), strict=True):
        np.testing.assert_array_equal(one.means, other.means)
        np.testing.assert_array_equal(one.saliency, other.saliency)
    assert not Calibrated.load(tmp_path / "without").heads


def test_heads_of_another_model_are_refused(files):
    shape = files.shape
    means = [np.zeros(shape.encoder_feed_forward, np.float32)] * (shape.encoder_layers + shape.decoder_layers)
    preview, heads = np.ones((shape.hidden, 2), np.float32), calibrated(shape, set())
    with pytest.raises(ValueError, match="heads of 3 attentions"):
        Whisper(shape, files.tensors, Calibrated(means, preview, preview, heads[:3]))
    other = [CalibratedHeads(found.means, np.ones(7, np.float32)) for found in heads]
    with pytest.raises(ValueError, match=r"encoder\.layers\.0\.self_attn has 2 heads"):
        Whisper(shape, files.tensors, Calibrated(means, preview, preview, other))


def test_a_gate_folds_means_into_the_bias():
    random = np.random.default_rng(2)
    weight, bias, means = (random.standard_normal(size).astype(np.float32) for size in ((8, 8), 8, 8))
    found = CalibratedHeads(means, np.array([0.2, 0.9, 0.5, 0.1], np.float32))
    active = HeadGate(4, kernels.pack_matrix(weight), bias, found)(0.4)
    assert active.count == 2
    assert active.channels.tolist() == [2, 3, 4, 5]
    assert active.parts(2).tolist() == [2, 3, 4, 5, 10, 11, 12, 13]
    np.testing.assert_allclose(active.bias, bias + weight[:, [0, 1, 6, 7]] @ means[[0, 1, 6, 7]], atol=1e-5)


def test_ranks_are_shares_of_all_heads():
    assert ranked([0.3, -0.1, 0.0, 2.0]).tolist() == [0.625, 0.125, 0.375, 0.875]
