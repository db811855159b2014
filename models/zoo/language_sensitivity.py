"""How much it matters where a channel of a language model is changed: what its saliency is measured in.

Reading d of a channel coarsely, what it is beside its mean, moves the distribution of the tokens that follow by about ½
d² F nats, of Kullback and Leibler's divergence, where F is the mean square of the derivative, by d, of the log
probability of tokens that the model itself draws (Fisher's information; Theis et al. 2018 prune by it). So d · √F can
be compared between the channels of all layers. At some positions all derivatives are larger than at others: F is here
that where a layer's care is 1, and `language_care` tells from the layer's inputs what it is.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.zoo.language_care import fitted_care
from models.zoo.llama_gates import CHANNEL_GATES, SINKS, care_name, gate_name, norms_name
from models.zoo.llama_packing import Array
from models.zoo.llama_torch import TorchLlama


def sensitivities(
    decoder: TorchLlama, windows: Sequence[Sequence[int]], report: Callable[[float], None]
) -> dict[str, Array]:
    """√F of the channels that each gate of the layers sees, by its `norms_name`, and what tells the care of each layer,
    by its `care_name`, from windows of tokens without their sinks."""
    squares: dict[str, NDArray[np.float64]] = {}
    layers = range(decoder.shape.layers)
    inputs: list[list[NDArray[np.float16]]] = [[] for _ in layers]
    sizes: list[list[NDArray[np.float64]]] = [[] for _ in layers]
    draws, positions = torch.Generator().manual_seed(0), 0
    for number, tokens in enumerate(windows):
        seen = _derivatives(decoder, tokens, draws)
        positions += len(tokens) - SINKS
        for layer in layers:
            given = seen[gate_name(layer, "attention")][0].detach()[0, SINKS:]
            inputs[layer].append(given.numpy().astype(np.float16))
            size = np.zeros(len(tokens) - SINKS)
            for gate in CHANNEL_GATES:
                name = gate_name(layer, gate)
                square = _gradient(seen[name][1])[0, SINKS:].double().square().numpy()
                squares[name] = squares.get(name, np.zeros(1)) + square.sum(0)
                size += (square / (squares[name] / positions + 1e-30)).mean(1) / len(CHANNEL_GATES)
            sizes[layer].append(size)
        report((number + 1) / len(windows))
    found: dict[str, Array] = {}
    for layer in layers:
        weights, constant = fitted_care(np.concatenate(inputs[layer]), np.concatenate(sizes[layer]))
        found[care_name(layer)] = (weights / 2).astype(np.float32)
        for gate in CHANNEL_GATES:
            name = gate_name(layer, gate)
            found[norms_name(name)] = np.sqrt(squares[name] / positions * np.exp(constant)).astype(np.float32)
    return found


def _derivatives(
    decoder: TorchLlama, tokens: Sequence[int], draws: torch.Generator
) -> dict[str, tuple[Tensor, Tensor]]:
    """What each gate sees in a window, by its name, and what is read coarsely of it: nothing, with its gradient."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def see(layer: int, gate: str, values: Tensor) -> Tensor:
        coarsely = torch.zeros_like(values).requires_grad_()
        seen[gate_name(layer, gate)] = values, coarsely
        return values - coarsely

    log_probability = decoder(torch.tensor([tokens]), see)[0].log_softmax(-1)
    drawn = torch.multinomial(log_probability.detach().exp(), 1, generator=draws)
    log_probability.gather(-1, drawn).sum().backward()  # type: ignore[no-untyped-call]
    return seen


def _gradient(values: Tensor) -> Tensor:
    assert values.grad is not None
    return values.grad
