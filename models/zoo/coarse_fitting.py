"""Coarse weights that make up for each other's errors, of a language model whose gates leave much to them.

Rounding a weight changes its product by the error times the input, and inputs go together: what is lost of one is made
up for by weights of others that are rounded later (GPTQ, Frantar et al. 2023). It takes the second moments of what is
multiplied by them, which is what the gates leave out of each input beside what stands for it. Those are measured where
the model starts, of tokens and under thresholds that are in its calibration: coarse weights themselves are far larger
than these.

A position counts by its care, as it does for the gates: a few, such as those of empty lines, have inputs hundreds of
times as large as others, of which what follows depends no more.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import cycle
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.language_gates import care, chosen_by, windows
from models.zoo.llama import Llama
from models.zoo.llama_gates import (
    CHANNEL_GATES,
    FITTED_ON,
    FITTED_UNDER,
    GATES,
    SINKS,
    care_name,
    gate_name,
    norms_name,
)
from models.zoo.llama_packing import Array

log = logging.getLogger(__name__)

FITTING = 2
"""Counts the ways of fitting that there were: what was kept of another is made anew."""

WINDOWS = 40
DAMPING = 0.05
"""Added to the variance of each input, as a share of the mean of all."""

PRODUCTS = MappingProxyType({"attention": "qkv", "output": "output", "feed_forward": "gate", "down": "down"})
"""Whose inputs a gate sees. The other halves of neurons are computed coarsely of all inputs of the gate halves."""


def to_fit_on(tokens: Sequence[int], thresholds: Sequence[Array]) -> dict[str, Array]:
    """What a calibration has of it: the tokens of windows of a text, and thresholds of some points, each [gates] of
    those on channels."""
    length = min(map(len, chosen := windows(tokens, WINDOWS)))
    kept = np.array([own[:length] for own in chosen], np.float32)
    return {FITTED_ON: kept, FITTED_UNDER: np.stack(thresholds).astype(np.float16).astype(np.float32)}


def fit_coarse(network: Llama, calibration: Mapping[str, Array], report: Callable[[float], None]) -> None:
    """Gives a network coarse weights as its calibration says. Those that are kept are not fitted again. `report` is
    called with the share done, 0 to 1."""
    fitting = _Fitting(network, calibration)

    def pack(layer: int, part: str, weight: Array) -> kernels.CoarseMatrix:
        order, factor = fitting.errors(layer, part)
        report((layer + 1) / network.shape.layers)
        return kernels.pack_coarse(weight, order=order, factor=factor)

    network.make_coarse(pack, _key(network, calibration))


def _key(network: Llama, calibration: Mapping[str, Array]) -> str:
    """Differs where coarse weights do."""
    gates = network.gates[:-1]
    cares = map(care_name, range(network.shape.layers))
    digest = sha256(str(FITTING).encode())
    for name in (FITTED_ON, FITTED_UNDER, *gates, *map(norms_name, gates), *cares):
        digest.update(calibration[name].tobytes() if name in calibration else b"")
    return digest.hexdigest()[:16]


@dataclass(slots=True)
class _Fitting:
    """Runs the fitting tokens through the layers, one after the other as they are asked for."""

    network: Llama
    calibration: Mapping[str, Array]
    _inputs: list[Array] = field(init=False)
    """Of the next layer, by window."""
    _next: int = 0
    _moments: dict[str, Array] = field(default_factory=dict)
    """Of the layer before that, by product, [inputs, inputs]."""
    _care: Array = field(init=False)
    """Of the positions of the window that a layer is at."""

    def __post_init__(self) -> None:
        self._inputs = [self.network.embed([int(token) for token in own]) for own in self.calibration[FITTED_ON]]

    def errors(self, layer: int, part: str) -> tuple[NDArray[np.int32], Array]:
        """The order and the factor that `kernels.pack_coarse` takes for a product of a layer."""
        if self._next == 0:
            log.info("fitting coarse weights, once; later starts find them")
        while self._next <= layer:
            self._moments = {}
            points = cycle(self.calibration[FITTED_UNDER])
            for i, (x, thresholds) in enumerate(zip(self._inputs, points, strict=False)):
                self._inputs[i] = self.network.layer_output(self._next, x, partial(self._watch, thresholds))
            self._next += 1
        return order_and_factor(self._moments[part])

    def _watch(self, thresholds: Array, number: int, values: Array) -> Array:
        gate, layer = GATES[number % len(GATES)], number // len(GATES)
        behind = values[SINKS:]
        if gate == "attention":
            self._care = care(behind, self.calibration.get(care_name(layer)))
        if gate == "feed_forward":
            self._add("up", behind * self._care)
        if gate != "neurons":
            name = gate_name(layer, gate)
            threshold = thresholds[len(CHANNEL_GATES) * layer + CHANNEL_GATES.index(gate)]
            # Not beside the mean here: what stands for a channel may be tuned, and means differ from text to text.
            deviations = (behind - self.calibration.get(name, np.zeros(1, np.float32))) * self._care
            if threshold > 0:
                saliency = np.abs(deviations) * self.calibration[norms_name(name)]
                deviations = np.where(chosen_by(saliency, threshold, coarse=True), 0, deviations)
            self._add(PRODUCTS[gate], deviations)
        return values

    def _add(self, part: str, rows: Array) -> None:
        moments = rows.T @ rows
        if part in self._moments:
            self._moments[part] += moments
        else:
            self._moments[part] = moments


def order_and_factor(moments: Array) -> tuple[NDArray[np.int32], Array]:
    """The inputs from the largest on, and the lower Cholesky factor of the inverse of their moments [inputs, inputs]
    in that order."""
    damping = max(DAMPING * float(moments.diagonal().mean()), 1e-30)
    damped = moments + damping * np.eye(len(moments))
    order = np.argsort(-damped.diagonal(), kind="stable").astype(np.int32)
    # From the last input on the moments are U Uᵀ of an upper triangle, whose inverse is the factor's transpose.
    backwards = damped[np.ix_(order, order)][::-1, ::-1]
    upper = np.linalg.cholesky(backwards)[::-1, ::-1].astype(np.float32)
    return order, np.ascontiguousarray(np.linalg.inv(upper).T)
