"""Whisper in torch beside the one that is served."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")
pytest.importorskip("torch")

import torch

from models.model import GateContext
from models.zoo.whisper import Whisper
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_positions import active_positions
from models.zoo.whisper_torch import TorchWhisper
from tests.models.zoo.random_whisper import write_random_whisper


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_it_is_the_served_network(tmp_path, threshold):
    files = read_whisper(write_random_whisper(tmp_path))
    shape, random, seen = files.shape, np.random.default_rng(0), []
    spectrum = random.standard_normal((shape.frames, shape.mels)).astype(np.float32)
    tokens, context, served = random.integers(0, 12, 7).tolist(), GateContext(0.0), Whisper(files.shape, files.tensors)
    heard = served.encode(spectrum, 30, context, {"positions": threshold})
    wanted = served.score(tokens, served.listen(heard, context), context)

    network = TorchWhisper(shape, files.tensors)
    positions = active_positions(15, shape.positions, threshold)
    assert (positions.near < shape.positions) == (threshold > 0)
    stem = network.stem(torch.from_numpy(spectrum))[torch.from_numpy(positions.all_ids)]
    states = network.encode(stem, positions, lambda *of: seen.append(of) or of[1])
    np.testing.assert_allclose(states.numpy(), heard.states, rtol=2e-3, atol=2e-3)
    given = network.score(torch.tensor(tokens), states, positions, lambda *of: seen.append(of) or of[1])
    np.testing.assert_allclose(given.numpy(), wanted, rtol=2e-3, atol=2e-3)
    assert {name for name, _ in seen} == {*served.attentions, *served.neuron_gates}
