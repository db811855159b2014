"""The profile of a language model from unlabelled text: what each gate's channels are on average, which thresholds are
worth their loss, and what to expect of them. Needs no torch: it runs the serving code."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.gating.agreement import CONFIDENCE
from models.gating.profile import OperatingPoint, Profile
from models.zoo import text_data
from models.zoo.language_gates import Masking, PromptGates, log_probabilities, losses, masking, pooled, windows
from models.zoo.language_model import LanguageModel
from models.zoo.language_quality import perplexity_ratio
from models.zoo.llama import BASIS, GATES, PROMPT_GATE, Array

POINTS = 13
PROBED_SHARES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "attention": (0.15, 0.35),
        "output": (0.4, 0.65, 0.85),
        "feed_forward": (0.2, 0.45),
        "neurons": (0.2, 0.45),
        "down": (0.4, 0.6, 0.75),
        "head": (0.5, 0.65, 0.75, 0.85),
        PROMPT_GATE: (0.25, 0.5),
    }
)
"""Of a gate's channels that are skipped where its loss is measured, all others dense: about where it ends up. The
head's rises steeply where it takes likely words for unlikely ones."""

SHARES = tuple(round(0.05 * i, 2) for i in range(19))
"""Of a gate's channels that may be skipped."""

MOST_DIVERGENCE = 0.16
"""Nats a token by which the distribution of the next one may differ from dense, as the sum over the gates predicts it:
where the dial ends. It is about the logarithm of what perplexity grows by."""

MOST_PROMPT_DIVERGENCE = 0.03
"""The same for tokens behind a prompt whose gates are closed."""

DIRECTIONS = 128
"""Of the inputs of the logits, which are told from what was seen; the others are told from the weights."""

MEAN_WINDOWS, PROBE_WINDOWS, HELD_OUT_WINDOWS = 16, 2, 32


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
    read = windows(model.encode(tuning), MEAN_WINDOWS)
    calibration = _averages(model, read) | _turned_head(model, read)
    report(0.05)
    probes = read[:: max(1, len(read) // PROBE_WINDOWS)][:PROBE_WINDOWS]
    steps = _step_gates(model, calibration, probes, points, lambda done: report(0.05 + 0.55 * done))
    prompts = _prompt_gates(model, calibration, probes, points, lambda done: report(0.6 + 0.15 * done))
    found = list(zip(steps, prompts, strict=True))
    return measured(model, calibration, found, held_out, lambda done: report(0.75 + 0.25 * done)), calibration


def better_of(
    model: LanguageModel, tuned: Mapping[str, Array], held_out: str, report: Callable[[float], None]
) -> tuple[Profile, Mapping[str, Array], bool]:
    """The profile of a calibrated model on `held_out` with its own calibration or with that which was `tuned`, and
    which of the two: the one that agrees more with the dense model, over all points."""
    points = [(model.thresholds(point.level), model.prompt_thresholds(point.level)) for point in model.profile.points]
    own = measured(model, model.calibration, points, held_out, lambda done: report(done / 2))
    other = measured(model, tuned, points, held_out, lambda done: report((1 + done) / 2))
    if sum(point.agreement for point in other.points) > sum(point.agreement for point in own.points):
        return other, tuned, True
    return own, model.calibration, False


def measured(
    model: LanguageModel,
    calibration: Mapping[str, Array],
    points: Sequence[tuple[Array, Array]],
    held_out: str,
    report: Callable[[float], None],
) -> Profile:
    """The profile of these thresholds, of steps [gates] and of prompts [layers], one pair a point."""
    network, read = model.network, windows(model.encode(held_out), HELD_OUT_WINDOWS)
    norms = _neuron_norms(model, calibration)
    no_gates = PromptGates(norms, np.zeros(len(norms), np.float32))
    dense = np.concatenate([losses(log_probabilities(network, tokens, prompt=no_gates), tokens) for tokens in read])
    table = []
    for i, (thresholds, of_prompts) in enumerate(points):
        gates = masking(network, calibration, thresholds), PromptGates(norms, of_prompts)
        gated = np.concatenate([losses(log_probabilities(network, tokens, *gates), tokens) for tokens in read])
        table.append(_point(i / (len(points) - 1), model, *gates, dense, gated))
        report((i + 1) / len(points))
    name = model.name.partition(":")[0]
    return Profile(name, len(dense), CONFIDENCE, model.digest, tuple(table))


def _step_gates(
    model: LanguageModel,
    calibration: dict[str, Array],
    probes: Sequence[Sequence[int]],
    points: int,
    report: Callable[[float], None],
) -> list[Array]:
    """The thresholds [gates] of each point."""
    network = model.network
    quantiles = np.zeros((len(network.gates), len(SHARES)), np.float32)
    no_gates = masking(network, calibration, np.zeros(len(network.gates), np.float32))

    def watch(gate: int, values: Array) -> Array:
        quantiles[gate] += np.quantile(no_gates.saliency(gate, values), SHARES) / len(probes)
        return values

    dense = [log_probabilities(network, tokens, watch) for tokens in probes]

    def diverge(thresholds: Array) -> float:
        mask = masking(network, calibration, thresholds)
        gated = [log_probabilities(network, tokens, mask) for tokens in probes]
        return _divergence(dense, gated)

    costs = _costs(network.gates, quantiles, diverge, report)
    saved, shape = np.multiply.outer(np.prod(network.shape.gates(), 0), SHARES), network.shape
    thresholds = np.zeros(len(network.gates), np.float32)
    thresholds[-1] = quantiles[-1, SHARES.index(0.75)]
    again = masking(network, calibration, thresholds)
    log_probabilities(network, probes[0], again)
    saved[-1, 1:] -= shape.hidden * (shape.hidden + again.again / (len(probes[0]) - 1))
    found = _spread(_path(costs, saved, MOST_DIVERGENCE), saved, points)
    return [_thresholds(quantiles, shares) for shares in found]


def _prompt_gates(
    model: LanguageModel,
    calibration: dict[str, Array],
    probes: Sequence[Sequence[int]],
    points: int,
    report: Callable[[float], None],
) -> list[Array]:
    """The thresholds [layers] of each point."""
    network = model.network
    norms = _neuron_norms(model, calibration)
    quantiles = np.zeros((len(norms), len(SHARES)), np.float32)

    def watch(layer: int, gates: Array) -> None:
        quantiles[layer] += np.quantile(pooled(gates) * norms[layer], SHARES) / len(probes)

    for tokens in probes:
        network.advance(tokens[: len(tokens) // 2], network.start(), select=watch)
    no_gates = PromptGates(norms, np.zeros(len(norms), np.float32))
    dense = [log_probabilities(network, tokens, prompt=no_gates) for tokens in probes]

    def diverge(thresholds: Array) -> float:
        gates = PromptGates(norms, thresholds)
        return _divergence(dense, [log_probabilities(network, tokens, prompt=gates) for tokens in probes])

    costs = _costs(network.prompt_gates, quantiles, diverge, report)
    saved = np.multiply.outer(np.ones(len(norms)), SHARES)
    found = _spread(_path(costs, saved, MOST_PROMPT_DIVERGENCE), saved, points)
    return [_thresholds(quantiles, shares) for shares in found]


def _turned_head(model: LanguageModel, read: Sequence[Sequence[int]]) -> dict[str, Array]:
    """The directions in which what logits are made of varies most, by which the network's head is turned; and its mean
    then. A direction's length says nothing, so whole numbers up to 127 are exact enough."""
    network = model.network
    states = [network.normed(network.advance(tokens[:-1], network.start())) for tokens in read]
    normed = np.concatenate(states)
    mean = normed.mean(0)
    directions = np.linalg.eigh(np.cov(normed.T.astype(np.float64)))[1][:, ::-1][:, :DIRECTIONS]
    basis = np.round(127 * directions / np.abs(directions).max(0)).astype(np.float32)
    network.turn_head(basis)
    assert network.turn is not None
    return {BASIS: basis, "head": kernels.row_matmul(mean[None], network.turn)[0]}


def _neuron_norms(model: LanguageModel, calibration: Mapping[str, Array]) -> list[Array]:
    return [calibration[gate] for gate in model.network.gates if gate.endswith("neurons")]


def _averages(model: LanguageModel, read: Sequence[Sequence[int]]) -> dict[str, Array]:
    """The mean of each gate's inputs, and what each neuron's gate value is to be multiplied by: the norm of its column
    of the last product times how large what it is multiplied by is, on average."""
    network = model.network
    totals: dict[int, NDArray[np.float64]] = {}
    squares: dict[int, NDArray[np.float64]] = {}

    def watch(gate: int, values: Array) -> Array:
        if gate < len(network.gates) - 1 and GATES[gate % len(GATES)] not in ("neurons", "down"):
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


def _costs(
    gates: Sequence[str], quantiles: Array, diverge: Callable[[Array], float], report: Callable[[float], None]
) -> NDArray[np.float64]:
    """The divergence from dense, in nats a token, where one gate alone skips each of `SHARES`: [gates, shares]. It is
    measured at a few of them and follows a power of the share in between, and beyond. Quantiles [gates, shares] are the
    thresholds that skip those shares; the first are set to 0."""
    quantiles[:, 0] = 0
    costs = np.zeros((len(gates), len(SHARES)))
    for gate, name in enumerate(gates):
        measured, probed = [], PROBED_SHARES[name.rpartition(".")[2]]
        for share in probed:
            thresholds = np.zeros(len(gates), np.float32)
            thresholds[gate] = quantiles[gate, SHARES.index(share)]
            measured.append(max(1e-9, diverge(thresholds)))
        costs[gate, 1:] = _between(probed, measured)
        report((gate + 1) / len(gates))
    return costs


def _between(probed: Sequence[float], measured: Sequence[float]) -> NDArray[np.float64]:
    """What skipping each of `SHARES` but the first costs, from what it does at two or more of them."""
    at, costs, wanted = np.log(probed), np.log(measured), np.log(SHARES[1:])
    powers = np.maximum(1.0, np.diff(costs) / np.diff(at))
    part = np.clip(np.searchsorted(at, wanted) - 1, 0, len(powers) - 1)
    # From the end of its part, so that what was measured last holds where the power had to be raised.
    found: NDArray[np.float64] = np.exp(costs[part + 1] + powers[part] * (wanted - at[part + 1]))
    return found


def _divergence(dense: Sequence[Array], gated: Sequence[Array]) -> float:
    """Kullback and Leibler's, the mean over the positions of all windows."""
    return float(np.mean([(np.exp(a) * (a - b)).sum(1).mean() for a, b in zip(dense, gated, strict=True)]))


def _path(costs: NDArray[np.float64], saved: NDArray[np.float64], most: float) -> list[NDArray[np.int64]]:
    """From dense to the divergence `most`, a step at a time: the gate is closed further, by a share or several, that
    loses least for the work that it saves. Rows are the share of each gate, as its number in `SHARES`."""
    shares = np.zeros(len(costs), np.int64)

    def step(gate: int) -> tuple[float, int, int]:
        """Its price, the gate, and the share that it is closed to; infinite where that saves nothing."""
        here = shares[gate]
        more, less = costs[gate, here + 1 :] - costs[gate, here], saved[gate, here + 1 :] - saved[gate, here]
        prices = np.divide(more, less, out=np.full(len(more), np.inf), where=less > 0)
        best = int(prices.argmin())
        return float(prices[best]), gate, int(here) + 1 + best

    queue = [step(gate) for gate in range(len(costs))]
    heapq.heapify(queue)
    path, spent = [shares.copy()], 0.0
    while queue and spent < most:
        price, gate, share = heapq.heappop(queue)
        if not np.isfinite(price):
            break
        spent += costs[gate, share] - costs[gate, shares[gate]]
        shares[gate] = share
        path.append(shares.copy())
        if share + 1 < len(SHARES):
            heapq.heappush(queue, step(gate))
    return path


def _spread(path: Sequence[NDArray[np.int64]], saved: NDArray[np.float64], points: int) -> list[NDArray[np.int64]]:
    """So many steps of the path, dense first, evenly apart in the work that they save."""
    at = np.array([saved[np.arange(len(shares)), shares].sum() for shares in path])
    return [path[int(np.abs(at - wanted).argmin())] for wanted in np.linspace(0, at[-1], points)]


def _thresholds(quantiles: Array, shares: NDArray[np.int64]) -> Array:
    return quantiles[np.arange(len(quantiles)), shares]


def _point(
    level: float,
    model: LanguageModel,
    mask: Masking,
    prompt: PromptGates,
    dense: Array,
    gated: Array,
) -> OperatingPoint:
    """What gates did in the second halves of windows whose first halves were prompts, from the losses there."""
    network, shape = model.network, model.network.shape
    channels, worth = (np.array(part) for part in shape.gates())
    kept = mask.active / mask.met
    again = (mask.again / mask.met[-1] + (mask.thresholds[-1] > 0)) * shape.hidden**2
    saved = float((((1 - kept) * channels * worth).sum() - again) / shape.macs(0, 1, True))
    ratio, lower = perplexity_ratio(dense, gated)
    known = zip((*network.gates, *network.prompt_gates), (*mask.thresholds, *prompt.thresholds), strict=True)
    return OperatingPoint(
        level=level,
        thresholds={gate: float(value) for gate, value in known},
        skip_rate=float(1 - (kept * channels).sum() / channels.sum()),
        macs_ratio=1 - saved,
        accuracy=None,
        accuracy_lower=None,
        agreement=1.0 if level == 0 else ratio,
        agreement_lower=1.0 if level == 0 else lower,
    )
