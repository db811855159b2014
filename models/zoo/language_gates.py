"""What the gates of a language model do to a text, position by position: a pass over many positions at once, as a
prompt takes it, in which each of them has the gates that it would have as a step of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from models.zoo.llama import GATES, Array, Llama, Watch

WINDOW = 256
"""Tokens of a text that are read together."""


@dataclass(slots=True)
class Masking:
    """Stands in for what the thresholds [gates] skip: the means of inputs, zero for neurons and products. `active` [gates] adds up
    the channels that were not skipped, `met` those that there were, and `again` the logits that were computed again."""

    calibration: Mapping[str, Array]
    names: Sequence[str]
    norms: Sequence[Array]
    thresholds: Array
    active: NDArray[np.int64] = field(init=False)
    met: NDArray[np.int64] = field(init=False)
    again: int = 0

    def __post_init__(self) -> None:
        self.active, self.met = (np.zeros(len(self.names), np.int64) for _ in range(2))

    def __call__(self, gate: int, values: Array) -> Array:
        if gate == len(self.names):
            self.again += values.size
            return values
        self.met[gate] += values.size
        if not self.thresholds[gate] > 0:
            self.active[gate] += values.size
            return values
        chosen = self.saliency(gate, values) > self.thresholds[gate]
        self.active[gate] += int(chosen.sum())
        masked: Array = np.where(chosen, values, self._stand_in(gate))
        return masked

    def saliency(self, gate: int, values: Array) -> Array:
        """Of each channel of each position, [n, channels]."""
        deviations: Array = np.abs(values - self._stand_in(gate)) * self.norms[gate]
        return deviations

    def _stand_in(self, gate: int) -> Array:
        name = self.names[gate]
        return np.zeros(1, np.float32) if name.endswith(("neurons", "down")) else self.calibration[name]


def masking(network: Llama, calibration: Mapping[str, Array], thresholds: Array) -> Masking:
    """The gates of a network under thresholds [gates]."""
    norms, thresholds = [], thresholds.copy()
    for gate, name in enumerate(network.gates):
        if name.endswith("down") and thresholds[gate - 1] > 0:  # neurons that were left out are no inputs
            thresholds[gate] = max(thresholds[gate], np.finfo(np.float32).tiny)
    for i, layer in enumerate(network.layers):
        neurons = calibration[network.gates[len(GATES) * i + GATES.index("neurons")]]
        norms += [layer.qkv.norms, layer.output.norms, layer.gate.norms, neurons, layer.down.norms]
    return Masking(calibration, network.gates, [*norms, network.head.norms], thresholds)


def log_probabilities(network: Llama, tokens: Sequence[int], watch: Watch | None = None) -> Array:
    """Of each next token after each of a window's tokens but the last: [n − 1, vocabulary]."""
    states = network.advance(tokens[:-1], network.start(), watch)
    logits = network.logits(states, watch)
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return logits


def losses(log_probability: Array, tokens: Sequence[int]) -> Array:
    """The negative log probability of each of a window's tokens but the first, [n − 1]."""
    picked: Array = -log_probability[np.arange(len(tokens) - 1), np.asarray(tokens[1:])]
    return picked


def windows(tokens: Sequence[int], most: int, length: int = WINDOW) -> list[list[int]]:
    """Up to `most` windows of a text, from all over it. Raises `ValueError` for a text that is too short."""
    if len(tokens) < 2:
        raise ValueError("the text is too short: it must have at least two tokens")
    starts = list(range(0, max(1, len(tokens) - length + 1), length))
    chosen = [starts[i] for i in np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int)]
    return [list(tokens[start : start + length]) for start in chosen]


def save_calibration(calibration: Mapping[str, Array], path: Path) -> None:
    """Writes it as safetensors in float16, all of it or nothing."""
    partial = path.with_suffix(".partial")
    save_file({name: values.astype(np.float16) for name, values in calibration.items()}, partial)
    partial.replace(path)


def load_calibration(path: Path) -> dict[str, Array]:
    """Reads what `save_calibration` wrote. Raises `FileNotFoundError`."""
    return {name: values.astype(np.float32) for name, values in load_file(path).items()}
