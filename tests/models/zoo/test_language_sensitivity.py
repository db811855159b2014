"""What it costs to change a channel, foretold and tried."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("torch")

from models.zoo import llama_torch
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.language_gates import has_channels
from models.zoo.language_sensitivity import sensitivities
from models.zoo.llama import Llama
from models.zoo.llama_gates import GATES, SINKS, care_name, norms_name
from models.zoo.llama_shape import read_shape
from models.zoo.llama_torch import TorchLlama
from tests.models.zoo.random_llama import write_random_llama


def test_a_small_change_costs_what_was_foretold(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_torch.kernels, "instruction_set", lambda datatype: "portable")
    folder = write_random_llama(tmp_path)
    shape, weights = read_shape(read_json(folder / "config.json")), Tensors(weights_path(folder))
    network, shares = Llama(shape, weights), []
    read = [np.random.default_rng(seed).integers(3, 250, 24).tolist() for seed in range(40)]
    found = sensitivities(TorchLlama(shape, weights), read, shares.append)
    assert shares == [(i + 1) / 40 for i in range(40)]
    assert set(found) == {
        *map(norms_name, filter(has_channels, network.gates[:-1])),
        *map(care_name, range(shape.layers)),
    }

    def likelihoods(tokens, changed=None, channel=0, position=0, by=0.0):
        def watch(gate, values):
            if gate != changed:
                return values
            moved = values.copy()
            moved[position, channel] += by
            return moved

        logits = network.logits(network.advance(tokens, network.start(), watch)).astype(np.float64)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def cares_of(tokens, care):
        seen = []

        def watch(gate, values):
            if gate == len(GATES):
                seen.append(np.exp(values @ care))
            return values

        network.advance(tokens, network.start(), watch)
        return seen[0]

    for gate in filter(lambda gate: has_channels(network.gates[gate]), range(len(GATES), 2 * len(GATES))):
        sensitive, care = found[norms_name(network.gates[gate])], found[care_name(1)]
        channel, costs, foretold = int(np.argsort(sensitive)[len(sensitive) * 3 // 4]), [], []
        for tokens in read[:8]:
            dense = likelihoods(tokens)
            cares = cares_of(tokens, care)
            for position in range(SINKS, len(tokens), 5):
                moved = likelihoods(tokens, gate, channel, position, 0.02)
                costs.append((np.exp(dense) * (dense - moved)).sum())
                foretold.append(0.5 * (0.02 * sensitive[channel] * cares[position]) ** 2)
        assert 0.5 < np.mean(costs) / np.mean(foretold) < 2
