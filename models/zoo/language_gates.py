"""What the gates of a language model do to a text, position by position: a pass over many positions at once, as a
prompt takes it, in which each of them has the gates on channels that it would have as a step of its own. Those on heads
are open: what they do depends on the steps before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.llama import Llama, Watch
from models.zoo.llama_gates import CHANNEL_GATES, GATES, SINKS, care_name, norms_name
from models.zoo.llama_packing import Array

WINDOW = 256
"""Tokens of a text that are read together."""

COARSE_WORK = 0.5
"""Of a multiply-accumulate by coarse weights, beside one by others: they are of 4 bits, and those of int8 or more."""


@dataclass(slots=True)
class Masking:
    """Stands in for what the thresholds [gates] leave out: what was calibrated for it, or zero. `active` [gates] adds
    up the channels that were not left out, `met` those that there were, `spared` the work that was not done, in
    channels, and `again` the logits that were computed again. Gates that are `coarse` leave nothing out where too many
    channels are active, see `kernels.SHARE_BESIDE_COARSE`."""

    calibration: Mapping[str, Array]
    names: Sequence[str]
    norms: Sequence[Array]
    thresholds: Array
    coarse: NDArray[np.bool_]
    active: NDArray[np.int64] = field(init=False)
    met: NDArray[np.int64] = field(init=False)
    spared: NDArray[np.float64] = field(init=False)
    again: int = 0
    care: Array = field(init=False)
    """What the saliencies of each position in this layer are multiplied by, [n, 1]."""

    def __post_init__(self) -> None:
        self.active, self.met = (np.zeros(len(self.names), np.int64) for _ in range(2))
        self.spared = np.zeros(len(self.names))

    def __call__(self, gate: int, values: Array) -> Array:
        if gate == len(self.names):
            self.again += values.size
            return values
        if gate % len(GATES) == 0:  # a layer's first, or that of the head, which has no care
            self.care = care(values, self.calibration.get(care_name(gate // len(GATES))))
        self.met[gate] += values.size
        if not self.thresholds[gate] > 0:
            self.active[gate] += values.size
            return values
        chosen = chosen_by(self.saliency(gate, values), self.thresholds[gate], self.coarse[gate])
        active = chosen.sum(1)
        self.active[gate] += int(active.sum())
        self.spared[gate] += spared(values.shape[1], active, self.coarse[gate]).sum()
        masked: Array = np.where(chosen, values, self._stand_in(gate))
        return masked

    def saliency(self, gate: int, values: Array) -> Array:
        """Of each channel of each position, [n, channels], of those that the gate was called with."""
        deviations: Array = np.abs(values - self._stand_in(gate)) * self.norms[gate] * self.care
        return deviations

    def _stand_in(self, gate: int) -> Array:
        # What a neuron is skipped by is its gate half, and that is not what follows it.
        stand_in = None if self.names[gate].endswith("neurons") else self.calibration.get(self.names[gate])
        return np.zeros(1, np.float32) if stand_in is None else stand_in


def care(values: Array, weights: Array | None) -> Array:
    """What saliencies are multiplied by in a layer, of its normed inputs [n, hidden]: [n, 1]."""
    return np.ones((len(values), 1), np.float32) if weights is None else np.exp(values @ weights)[:, None]


def chosen_by(saliency: Array, threshold: float, coarse: Any) -> NDArray[np.bool_]:
    """Which channels are active, [n, channels]: those above the threshold, or, of a gate that is coarse, all where too
    many are."""
    chosen = saliency > threshold
    if coarse:
        chosen |= chosen.mean(1, keepdims=True) > kernels.SHARE_BESIDE_COARSE
    return chosen


def spared(channels: Any, active: NDArray[Any], coarse: Any) -> NDArray[np.float64]:
    """The work that a gate spares, in channels, where so many of them are active: that of the others, but for what
    reading all of them coarsely takes."""
    left = channels - active
    work: NDArray[np.float64] = left - np.where(coarse & (left > 0), COARSE_WORK * channels, 0.0)
    return work


@dataclass(slots=True)
class PromptGates:
    """Chooses the neurons of each layer for the positions of a prompt, or a part of one, together: those are active
    whose saliency, pooled over them, is above the threshold of the layer, `thresholds` [layers]. `norms` are what their
    gate halves are multiplied by. `active` is how many were, by layer, `skipped` how many were not, in all."""

    norms: Sequence[Array | None]
    thresholds: Array
    active: dict[int, int] = field(default_factory=dict)
    skipped: int = 0

    def __call__(self, layer: int, gates: Array) -> NDArray[np.int32] | None:
        norms = self.norms[layer]
        self.active[layer] = gates.shape[1]
        if norms is None or not self.thresholds[layer] > 0:
            return None
        chosen = np.flatnonzero(pooled(gates) * norms > self.thresholds[layer]).astype(np.int32)
        self.active[layer] = len(chosen)
        self.skipped += gates.shape[1] - len(chosen)
        return chosen if len(chosen) < gates.shape[1] else None


def pooled(gates: Array) -> Array:
    """How large each neuron's gate half [n, neurons] is over all positions: the root of the mean of its squares."""
    size: Array = np.sqrt(np.einsum("ij,ij->j", gates, gates) / len(gates))
    return size


def masking(network: Llama, calibration: Mapping[str, Array], thresholds: Array) -> Masking:
    """The gates of a network under thresholds [gates]."""
    thresholds, coarse = thresholds.copy(), network.coarse_gates
    for gate, name in enumerate(network.gates):
        if name.endswith("down") and thresholds[gate - 1] > 0 and not coarse[gate - 1]:
            # Neurons that were left out are no inputs.
            thresholds[gate] = max(thresholds[gate], np.finfo(np.float32).tiny)
    none = np.empty(0, np.float32)
    norms = [calibration[norms_name(gate)] if has_channels(gate) else none for gate in network.gates[:-1]]
    return Masking(calibration, network.gates, [*norms, network.head.norms], thresholds, coarse)


def has_channels(gate: str) -> bool:
    """Whether that is a gate of steps on channels, and not on heads."""
    return gate == "head" or gate.rpartition(".")[2] in CHANNEL_GATES


def channel_gates(network: Llama) -> NDArray[np.intp]:
    """The numbers of those, among all gates of steps."""
    return np.flatnonzero([has_channels(gate) for gate in network.gates])


def log_probabilities(
    network: Llama, tokens: Sequence[int], watch: Watch | None = None, prompt: PromptGates | None = None
) -> Array:
    """Of each next token after each of a window's tokens but the last: [n − 1, vocabulary]. With gates for a prompt its
    first half is one, and what follows each token of the other half is given: [n − n // 2, vocabulary]. The watch is
    not shown the prompt, nor the sinks without one."""
    cache = network.start()
    if prompt:
        first = network.advance(tokens[: len(tokens) // 2], cache, select=prompt)[-1:]
    else:
        first = network.advance(tokens[:SINKS], cache)
    rest = network.advance(tokens[cache.length : -1], cache, watch)
    return log_softmax(np.concatenate([network.logits(first), network.logits(rest, watch)]))


def step_log_probabilities(network: Llama, tokens: Sequence[int], thresholds: Array, first: int) -> Array:
    """The same of each token from that of number `first` on, [n − first, vocabulary], where those from there on are
    steps under thresholds [gates], and those before them a dense prompt."""
    cache = network.start()
    logits = [network.logits(network.advance(tokens[:first], cache)[-1:])]
    for token in tokens[first:-1]:
        logits.append(network.decode([token], [cache], thresholds[None])[0])
    return log_softmax(np.concatenate(logits))


def log_softmax(logits: Array) -> Array:
    """Log probabilities in the place of logits [n, vocabulary]."""
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return logits


def losses(log_probability: Array, tokens: Sequence[int]) -> Array:
    """The negative log probability of the last of a window's tokens, as many as there are rows, [n]."""
    count = len(log_probability)
    picked: Array = -log_probability[np.arange(count), np.asarray(tokens[len(tokens) - count :])]
    return picked


def windows(tokens: Sequence[int], most: int, length: int = WINDOW) -> list[list[int]]:
    """Up to `most` windows of a text, from all over it. Raises `ValueError` for a text that is too short."""
    if len(tokens) < 2 * SINKS:
        raise ValueError(f"the text is too short: it must have at least {2 * SINKS} tokens")
    starts = list(range(0, max(1, len(tokens) - length + 1), length))
    chosen = [starts[i] for i in np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int)]
    return [list(tokens[start : start + length]) for start in chosen]
