"""The decoder in torch beside the one that is served."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("torch")

import torch

from models.zoo import llama_torch
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.llama import Llama
from models.zoo.llama_gates import CHANNEL_GATES
from models.zoo.llama_shape import read_shape
from models.zoo.llama_torch import TorchLlama
from tests.models.zoo.random_llama import FAMILIES, write_random_llama


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_served_decoder(tmp_path, monkeypatch, family):
    monkeypatch.setattr(llama_torch.kernels, "instruction_set", lambda datatype: "portable")
    folder, seen = write_random_llama(tmp_path, family), []
    shape, weights = read_shape(read_json(folder / "config.json")), Tensors(weights_path(folder))
    network = Llama(shape, weights)
    tokens = np.random.default_rng(1).integers(3, 250, 40).tolist()
    given = TorchLlama(shape, weights)(torch.tensor([tokens]), lambda *of: seen.append(of) or of[2])
    wanted = network.logits(network.advance(tokens, network.start()))
    np.testing.assert_allclose(given[0].numpy(), wanted, rtol=2e-3, atol=2e-3)
    channels = dict(zip(network.gates, shape.gates()[0], strict=True))
    assert [(layer, gate) for layer, gate, _ in seen] == [(i, gate) for i in range(3) for gate in CHANNEL_GATES]
    assert all(values.shape == (1, 40, channels[f"layer{layer + 1}.{gate}"]) for layer, gate, values in seen)
