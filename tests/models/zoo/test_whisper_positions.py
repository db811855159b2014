"""The gate on positions, and the convolutions at those that are there."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.model import GateContext
from models.zoo.whisper import POSITIONS_GATE, Whisper
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_positions import STANDS_FOR, active_positions
from tests.models.zoo.random_whisper import MELS, POSITIONS, write_random_whisper


@pytest.mark.parametrize(
    ("speech", "threshold", "near"),
    [(150, 0.0, 1500), (150, 0.9, 300), (150, 1.0, 150), (1450, 0.5, 1500), (0, 1.0, 0)],
)
def test_the_further_from_the_speech_the_less_important(speech, threshold, near):
    positions = active_positions(speech, 1500, threshold)
    assert positions.near == near
    assert positions.sizes.sum() == 1500
    assert len(positions) == near + -(-(1500 - near) // STANDS_FOR)
    assert (np.diff(positions.all_ids) > 0).all()
    assert positions.all_ids.max(initial=0) < 1500


def test_each_is_attended_to_as_often_as_it_stands_for_a_position():
    bias = active_positions(150, 1500, 1.0).bias()
    assert bias.shape == (150 + 54,)
    assert np.exp(bias).sum() == pytest.approx(1500)
    assert active_positions(150, 1500, 0.0).bias() is None


def test_the_convolutions_are_those_of_the_whole_window(tmp_path):
    files = read_whisper(write_random_whisper(tmp_path))
    stem = Whisper(replace(files.shape, encoder_layers=0), files.tensors)
    spectrum = np.random.default_rng(0).uniform(-1, 1, (2 * POSITIONS, MELS)).astype(np.float32)
    whole = stem.encode(spectrum, 0, GateContext(0.0)).states
    for speech, threshold in ((20, 0.8), (7, 1.0), (0, 1.0), (49, 1.0)):
        context = GateContext(0.0)
        part = stem.encode(spectrum, speech, context, {POSITIONS_GATE: threshold})
        assert np.allclose(part.states, whole[part.positions.all_ids], atol=1e-5)
        assert context.layers[POSITIONS_GATE].skipped == POSITIONS - len(part.positions)
    assert context.macs_skipped < context.macs


def test_where_the_rest_is_alike_attending_by_size_is_exact(tmp_path):
    files = read_whisper(write_random_whisper(tmp_path))
    tensors = dict(files.tensors)
    tensors["encoder.embed_positions.weight"] = np.zeros_like(tensors["encoder.embed_positions.weight"])
    model = Whisper(files.shape, tensors)
    spectrum = np.full((2 * POSITIONS, MELS), -0.5, np.float32)
    spectrum[:20] = np.random.default_rng(0).uniform(-1, 1, (20, MELS))
    context = GateContext(0.0)
    whole = model.encode(spectrum, 20, context)
    part = model.encode(spectrum, 20, context, {POSITIONS_GATE: 0.9})
    # The very last position sees the zeros past the window's end, and is one of fifty.
    assert np.abs(part.states[:15] - whole.states[:15]).max() < 0.05 * np.abs(whole.states).max()
    said = [model.step([16, 17, 21, 25], model.listen(heard, context), context).logits for heard in (whole, part)]
    assert np.abs(said[0] - said[1]).max() < 0.05 * np.abs(said[0]).max()
