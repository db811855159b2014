"""How much it matters where a channel of a language model is changed: what its saliency is measured in.

Leaving a channel at its mean, that is d away, moves the distribution of the tokens that follow by about ½ d² F nats, of
Kullback and Leibler's divergence, where F is the mean square of the derivative of the log probability of tokens that
the model itself draws, by the channel (Fisher's information; Theis et al. 2018 prune by it). So d · √F can be compared
between the channels of all layers.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.zoo.llama import GATES, SINKS, gate_name
from models.zoo.llama_packing import Array
from models.zoo.llama_torch import TorchLlama


def sensitivities(
    decoder: TorchLlama, windows: Sequence[Sequence[int]], report: Callable[[float], None]
) -> dict[str, Array]:
    """√F of the channels that each gate of the layers sees, by its name, from windows of tokens without
    their sinks."""
    squares: dict[str, NDArray[np.float64]] = {}
    draws = torch.Generator().manual_seed(0)
    for number, tokens in enumerate(windows):
        seen: dict[str, Tensor] = {}

        def see(layer: int, gate: str, values: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
            # A tensor of its own: what a gate sees may be used behind it as well, where it is whole.
            own = values.clone() if values.requires_grad else values.requires_grad_()
            own.retain_grad()
            seen[gate_name(layer, gate)] = own
            return own

        log_probability = decoder(torch.tensor([tokens]), see)[0].log_softmax(-1)
        drawn = torch.multinomial(log_probability.detach().exp(), 1, generator=draws)
        log_probability.gather(-1, drawn).sum().backward()  # type: ignore[no-untyped-call]
        for name, values in seen.items():
            assert values.grad is not None
            squares[name] = squares.get(name, np.zeros(1)) + values.grad[0, SINKS:].double().square().sum(0).numpy()
        report((number + 1) / len(windows))
    positions = sum(len(tokens) - SINKS for tokens in windows)
    names = [gate_name(layer, gate) for layer in range(decoder.shape.layers) for gate in GATES]
    return {name: np.sqrt(squares[name] / positions).astype(np.float32) for name in names}
