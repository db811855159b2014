"""The profile of a language model from unlabelled text: what each gate's channels are on average, which thresholds are
worth their loss, and what to expect of them. Needs no torch: it runs the serving code."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.gating.agreement import CONFIDENCE
from models.gating.profile import OperatingPoint, Profile
from models.zoo import text_data
from models.zoo.language_gates import Masking, log_probabilities, losses, masking, windows
from models.zoo.language_model import LanguageModel
from models.zoo.language_quality import perplexity_ratio
from models.zoo.llama import GATES, Array

POINTS = 13
PROBED_SHARES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "attention": (0.15, 0.35),
        "output": (0.4, 0.65, 0.85),
        "feed_forward": (0.2, 0.45),
        "neurons": (0.2, 0.45),
        "down": (0.4, 0.6, 0.75),
        "head": (0.35, 0.5, 0.65, 0.75, 0.85),
    }
)
"""Of a gate's channels that are skipped where its loss is measured, all others dense: about where it ends up. The
head's rises steeply where it takes likely words for unlikely ones."""

SHARES = tuple(round(0.05 * i, 2) for i in range(19))
"""Of a gate's channels that may be skipped."""

MOST_DIVERGENCE = 0.16
"""Nats a token by which the distribution of the next one may differ from dense, as the sum over the gates predicts it:
where the dial ends. It is about the logarithm of what perplexity grows by."""

MEAN_WINDOWS, PROBE_WINDOWS, HELD_OUT_WINDOWS = 16, 2, 16


def default_texts() -> tuple[str, str]:
    """A text to find thresholds on, news, and another to measure them on, sentences of Moby Dick. Raises
    `text_data.MissingData`."""
    return "\n\n".join(text_data.lee_background()), " ".join(text_data.sample(test=False))


def split_text(lines: Sequence[str]) -> tuple[str, str]:
    """A user's own lines, for the same: the last third is to be measured on."""
    first = max(1, len(lines) * 2 // 3)
    return "\n".join(lines[:first]), "\n".join(lines[first:])


def calibrate(
    model: LanguageModel, tuning: str, held_out: str, report: Callable[[float], None], *, points: int = POINTS
) -> tuple[Profile, dict[str, Array]]:
    """Means and thresholds from the text `tuning`, what to expect of them from `held_out`. `report` is called with the
    share done, 0 to 1. Raises `ValueError` for texts that are too short."""
    network = model.network
    network.allow_previews()
    read = windows(model.encode(tuning), MEAN_WINDOWS)
    measured = windows(model.encode(held_out), HELD_OUT_WINDOWS)
    calibration = _averages(model, read)
    report(0.05)
    probes = read[:: max(1, len(read) // PROBE_WINDOWS)][:PROBE_WINDOWS]
    quantiles = _quantiles(masking(network, calibration, np.zeros(len(network.gates), np.float32)), model, probes)
    report(0.1)
    costs = _costs(model, calibration, quantiles, probes, lambda done: report(0.1 + 0.6 * done))
    channels, worth = network.shape.gates()
    work = np.array(channels) * np.array(worth) / network.shape.macs(0, 1, True)
    table = []
    dense = [losses(log_probabilities(network, tokens), tokens) for tokens in measured]
    for i, shares in enumerate(_spread(_path(costs, work), work, points)):
        thresholds = _thresholds(quantiles, shares)
        mask = masking(network, calibration, thresholds)
        gated = [losses(log_probabilities(network, tokens, mask), tokens) for tokens in measured]
        table.append(_point(i / (points - 1), model, mask, np.concatenate(dense), np.concatenate(gated)))
        report(0.7 + 0.3 * (i + 1) / points)
    samples = sum(len(tokens) - 1 for tokens in measured)
    name = model.name.partition(":")[0]
    return Profile(name, samples, CONFIDENCE, model.digest, tuple(table)), calibration


def _averages(model: LanguageModel, read: Sequence[Sequence[int]]) -> dict[str, Array]:
    """The mean of each gate's inputs, and what each neuron's gate value is to be multiplied by: the norm of its column
    of the last product times how large what it is multiplied by is, on average."""
    network = model.network
    totals: dict[int, NDArray[np.float64]] = {}
    squares: dict[int, NDArray[np.float64]] = {}

    def watch(gate: int, values: Array) -> Array:
        if GATES[gate % len(GATES)] not in ("neurons", "down"):
            totals[gate] = totals.get(gate, np.zeros(1)) + values.sum(0)
        if gate < len(network.gates) - 1 and GATES[gate % len(GATES)] == "feed_forward":
            layer = gate // len(GATES)
            up = model.network.up(layer, values)
            squares[layer] = squares.get(layer, np.zeros(1)) + np.square(up).sum(0)
        return values

    positions = 0
    for tokens in read:
        log_probabilities(network, tokens, watch)
        positions += len(tokens) - 1
    calibration = {network.gates[gate]: (total / positions).astype(np.float32) for gate, total in totals.items()}
    for layer, total in squares.items():
        size = np.sqrt(total / positions).astype(np.float32)
        calibration[network.gates[len(GATES) * layer + GATES.index("neurons")]] = (
            size * network.layers[layer].down.norms
        )
    return calibration


def _quantiles(mask: Masking, model: LanguageModel, probes: Sequence[Sequence[int]]) -> Array:
    """The thresholds that skip `SHARES` of each gate's channels, [gates, shares]."""
    found = np.zeros((len(model.network.gates), len(SHARES)), np.float32)

    def watch(gate: int, values: Array) -> Array:
        found[gate] += np.quantile(mask.saliency(gate, values), SHARES) / len(probes)
        return values

    for tokens in probes:
        log_probabilities(model.network, tokens, watch)
    found[:, 0] = 0
    return found


def _costs(
    model: LanguageModel,
    calibration: dict[str, Array],
    quantiles: Array,
    probes: Sequence[Sequence[int]],
    report: Callable[[float], None],
) -> NDArray[np.float64]:
    """The divergence from dense, in nats a token, where one gate alone skips each of `SHARES`: [gates, shares]. It is
    measured at a few of them and follows a power of the share in between, and beyond."""
    network, gates = model.network, len(model.network.gates)
    dense = [log_probabilities(network, tokens) for tokens in probes]
    costs = np.zeros((gates, len(SHARES)))
    for gate in range(gates):
        measured: list[float] = []
        probed = PROBED_SHARES[network.gates[gate].rpartition(".")[2]]
        for share in probed:
            thresholds = np.zeros(gates, np.float32)
            thresholds[gate] = quantiles[gate, SHARES.index(share)]
            mask = masking(network, calibration, thresholds)
            gated = [log_probabilities(network, tokens, mask) for tokens in probes]
            found = [_divergence(a, b) for a, b in zip(dense, gated, strict=True)]
            measured.append(max(1e-9, sum(found) / len(found)))
        costs[gate, 1:] = _between(probed, measured)
        report((gate + 1) / gates)
    return costs


def _between(probed: Sequence[float], measured: Sequence[float]) -> NDArray[np.float64]:
    """What skipping each of `SHARES` but the first costs, from what it does at two or more of them."""
    at, costs, wanted = np.log(probed), np.log(measured), np.log(SHARES[1:])
    powers = np.maximum(1.0, np.diff(costs) / np.diff(at))
    part = np.clip(np.searchsorted(at, wanted) - 1, 0, len(powers) - 1)
    # From the end of its part, so that what was measured last holds where the power had to be raised.
    found: NDArray[np.float64] = np.exp(costs[part + 1] + powers[part] * (wanted - at[part + 1]))
    return found


def _divergence(dense: Array, gated: Array) -> float:
    """Kullback and Leibler's, the mean over the positions."""
    return float((np.exp(dense) * (dense - gated)).sum(1).mean())


def _path(costs: NDArray[np.float64], work: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """From dense to `MOST_DIVERGENCE`, a step at a time: the gate is closed further that loses least for the work that
    it saves. Rows are the share of each gate, as its number in `SHARES`."""
    shares = np.zeros(len(costs), np.int64)

    def price(gate: int) -> float:
        here = shares[gate]
        return float((costs[gate, here + 1] - costs[gate, here]) / (work[gate] * (SHARES[here + 1] - SHARES[here])))

    queue = [(price(gate), gate) for gate in range(len(costs))]
    heapq.heapify(queue)
    path, spent = [shares.copy()], 0.0
    while queue and spent < MOST_DIVERGENCE:
        _, gate = heapq.heappop(queue)
        spent += costs[gate, shares[gate] + 1] - costs[gate, shares[gate]]
        shares[gate] += 1
        path.append(shares.copy())
        if shares[gate] + 1 < len(SHARES):
            heapq.heappush(queue, (price(gate), gate))
    return path


def _spread(path: Sequence[NDArray[np.int64]], work: NDArray[np.float64], points: int) -> list[NDArray[np.int64]]:
    """So many steps of the path, dense first, evenly apart in the work that they save."""
    saved = np.array([(np.take(SHARES, shares) * work).sum() for shares in path])
    return [path[int(np.abs(saved - wanted).argmin())] for wanted in np.linspace(0, saved[-1], points)]


def _thresholds(quantiles: Array, shares: NDArray[np.int64]) -> Array:
    return quantiles[np.arange(len(quantiles)), shares]


def _point(level: float, model: LanguageModel, mask: Masking, dense: Array, gated: Array) -> OperatingPoint:
    channels, worth = (np.array(part) for part in model.network.shape.gates())
    kept = mask.active / mask.met
    shape = model.network.shape
    again = mask.again * shape.hidden * shape.hidden / mask.met[-1]
    saved = float((((1 - kept) * channels * worth).sum() - again) / shape.macs(0, 1, True))
    ratio, lower = perplexity_ratio(dense, gated)
    return OperatingPoint(
        level=level,
        thresholds={gate: float(value) for gate, value in zip(model.network.gates, mask.thresholds, strict=True)},
        skip_rate=float(1 - (kept * channels).sum() / channels.sum()),
        macs_ratio=1 - saved,
        accuracy=None,
        accuracy_lower=None,
        agreement=1.0 if level == 0 else ratio,
        agreement_lower=1.0 if level == 0 else lower,
    )
