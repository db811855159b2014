"""The profile of a language model from unlabelled text: what each gate's channels are on average and how much they
matter, which thresholds are worth their loss, and what to expect of them.

One price opens and closes all gates of the layers: a channel is read coarsely where that changes the next tokens less,
in nats, than its multiply-accumulates are worth. What a channel does to them is told by `language_sensitivity`, and
adds up well enough that no gate need be tried. What the head's gate does is another matter, and is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.gating.agreement import CONFIDENCE, gain
from models.gating.profile import OperatingPoint, Profile
from models.zoo import text_data
from models.zoo.coarse_fitting import fit_coarse, to_fit_on
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_calibration_file import rounded_norms
from models.zoo.language_gates import (
    Masking,
    PromptGates,
    channel_gates,
    has_channels,
    log_probabilities,
    losses,
    masking,
    pooled,
    spared,
    step_log_probabilities,
    windows,
)
from models.zoo.language_model import LanguageModel
from models.zoo.language_quality import perplexity_ratio
from models.zoo.llama_gates import BASIS, CHANNEL_GATES, GATES, SINKS, norms_name
from models.zoo.llama_packing import Array

POINTS = 13
MOST_DIVERGENCE = 0.12
"""Nats a token by which the distribution of the next one may differ from dense, as it is foretold: where the dial ends.
It is about the logarithm of what perplexity grows by."""

PRICES: NDArray[np.float64] = np.geomspace(1e-4, 10, 100)
"""Of a dense step's work, in nats, that are tried."""

PROMPT_SHARES = tuple(0.06 * i for i in range(1, 13))
"""Of the neurons of a prompt that are skipped where its loss is measured."""

PROMPT_PART = 0.4
"""How far the gates of a prompt may move the tokens behind it, of what those of steps do."""

FAR_THRESHOLDS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32)
"""Of the gates on heads, whose loss is measured."""

FAR_PART = 0.25
"""How far those may move the tokens of a long text, of what the gates on channels do."""

FAR_WINDOWS, FAR_LENGTH, FAR_FROM, FAR_LEAST = 2, 1024, 512, 128
"""Texts that they are measured on, of so many tokens, and the first token there. Where there are fewer than the last
behind that, they are not measured and stay open."""

HEAD_SHARES = (0.5, 0.65, 0.75, 0.8, 0.85)
"""Of the head's inputs that are skipped where its loss is measured; or it is dense."""

FITTED_SHARE = 0.25
"""Of the points, the last: coarse weights are fitted to what those leave out. Those before leave less to them."""

DIRECTIONS = 128
"""Of the inputs of the logits, which are told from what was seen; the others are told from the weights."""

SENSITIVITY_WINDOWS, MEAN_WINDOWS, PROBE_WINDOWS, HELD_OUT_WINDOWS = 48, 16, 4, 24


def default_texts() -> tuple[str, str, str]:
    """A text to find thresholds on, news, another to measure them on, sentences of Moby Dick, and one of all kinds to
    fit coarse weights on. Raises `text_data.MissingData`."""
    news = "\n\n".join(text_data.lee_background())
    return news, " ".join(text_data.sample(test=False)), "\n".join(text_data.texts())


def split_text(lines: Sequence[str]) -> tuple[str, str]:
    """A user's own lines, for the same: the last third is to be measured on."""
    first = max(1, len(lines) * 2 // 3)
    return "\n".join(lines[:first]), "\n".join(lines[first:])


def calibrate(
    model: LanguageModel,
    tuning: str,
    held_out: str,
    report: Callable[[float], None],
    *,
    points: int = POINTS,
    fitting: str | None = None,
) -> tuple[Profile, dict[str, Array]]:
    """Means, norms and thresholds from the text `tuning`, what to expect of them from `held_out`. Coarse weights are
    fitted on the text `fitting`, by default the first; of that some tokens are kept in the calibration. `report` is
    called with the share done, 0 to 1. Needs torch. Raises `ValueError` for texts that are too short."""
    from models.zoo.language_sensitivity import sensitivities
    from models.zoo.llama_torch import TorchLlama

    tokens = model.encode(tuning)
    model.network.make_coarse()
    decoder = TorchLlama(
        model.network.shape, Tensors(weights_path(model.folder)), coarse=model.network.coarse_weights()
    )
    sensitive = sensitivities(decoder, windows(tokens, SENSITIVITY_WINDOWS), lambda done: report(0.5 * done))
    del decoder
    read = windows(tokens, MEAN_WINDOWS)
    calibration = _means(model, read) | _turned_head(model, read)
    calibration |= {
        name: rounded_norms(values) if name.endswith(norms_name("")) else values for name, values in sensitive.items()
    }
    report(0.55)
    probes = read[:: max(1, len(read) // PROBE_WINDOWS)][:PROBE_WINDOWS]
    far = far_losses(model, windows(tokens, FAR_WINDOWS, min(FAR_LENGTH, model.context_length)))
    found = _points(model, calibration, probes, far, points)
    report(0.6)
    last = found[-max(1, round(len(found) * FITTED_SHARE)) :]
    channels = channel_gates(model.network)
    under = [steps[channels] for steps, _ in last]
    calibration |= to_fit_on(tokens if fitting is None else model.encode(fitting), under)
    fit_coarse(model.network, calibration, lambda done: None)
    return measured(model, calibration, found, held_out, lambda done: report(0.6 + 0.4 * done)), calibration


def better_of(
    model: LanguageModel, tuned: Mapping[str, Array], held_out: str, report: Callable[[float], None]
) -> tuple[Profile, Mapping[str, Array], bool]:
    """The profile of a calibrated model on `held_out` with its own calibration or with that which was `tuned`, and
    which of the two: the one that agrees more with the dense model for the same work, over all points."""
    points = [(model.thresholds(point.level), model.prompt_thresholds(point.level)) for point in model.profile.points]
    own = measured(model, model.calibration, points, held_out, lambda done: report(done / 2))
    fit_coarse(model.network, tuned, lambda done: None)
    other = measured(model, tuned, points, held_out, lambda done: report((1 + done) / 2))
    return (other, tuned, True) if gain(other, own) > 0 else (own, model.calibration, False)


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


def _means(model: LanguageModel, read: Sequence[Sequence[int]]) -> dict[str, Array]:
    """Those of the inputs of all products but the last of a layer, which are about 0, of steps behind the sinks."""
    network = model.network
    totals: dict[str, NDArray[np.float64]] = {}

    def watch(gate: int, values: Array) -> Array:
        name = network.gates[gate]
        if GATES[gate % len(GATES)] not in ("neurons", "down"):
            totals[name] = totals.get(name, np.zeros(1)) + values.sum(0)
        return values

    for tokens in read:
        cache = network.start()
        network.advance(tokens[:SINKS], cache)
        network.advance(tokens[SINKS:], cache, watch)
    positions = sum(len(tokens) - SINKS for tokens in read)
    return {gate: (total / positions).astype(np.float32) for gate, total in totals.items()}


def _turned_head(model: LanguageModel, read: Sequence[Sequence[int]]) -> dict[str, Array]:
    """The directions in which what logits are made of varies most, by which the network's head is turned; and its mean
    then. A direction's length says nothing, so whole numbers up to 127 are exact enough."""
    network = model.network
    normed = np.concatenate([network.normed(network.advance(tokens, network.start())[SINKS:]) for tokens in read])
    mean = normed.mean(0)
    directions = np.linalg.eigh(np.cov(normed.T.astype(np.float64)))[1][:, ::-1][:, :DIRECTIONS]
    basis = np.round(127 * directions / np.abs(directions).max(0)).astype(np.float32)
    network.turn_head(basis)
    assert network.turn is not None
    return {BASIS: basis, "head": kernels.row_matmul(mean[None], network.turn)[0]}


def _neuron_norms(model: LanguageModel, calibration: Mapping[str, Array]) -> list[Array]:
    return [calibration[norms_name(gate)] for gate in model.network.gates if gate.endswith("neurons")]


def _points(
    model: LanguageModel,
    calibration: dict[str, Array],
    probes: Sequence[Sequence[int]],
    far: tuple[Array, Array],
    points: int,
) -> list[tuple[Array, Array]]:
    """The thresholds of so many points, of steps [gates] and of prompts [layers]: dense first, evenly apart in the work
    that they save, of short texts. `far` is what the gates on heads lose, see `far_losses`."""
    network, shape = model.network, model.network.shape
    channels = channel_gates(network)
    worth, work = np.array(shape.gates()[1])[channels], shape.macs(0, 1, True)
    saliencies: list[list[Array]] = [[] for _ in network.gates]
    no_gates = masking(network, calibration, np.zeros(len(network.gates), np.float32))

    def watch(gate: int, values: Array) -> Array:
        seen = no_gates(gate, values)
        saliencies[gate].append(no_gates.saliency(gate, values))
        return seen

    dense = [log_probabilities(network, tokens, watch) for tokens in probes]
    seen = [_Seen.of(np.concatenate(saliencies[gate])) for gate in channels[:-1]]
    factors = np.append(np.sqrt(2 * worth[:-1] / work), 0.0)
    even, _ = _foretold(seen, factors, worth / work)
    price = float(PRICES[np.searchsorted(even, even[-1] / 2)])
    factors = _balanced(model, calibration, probes, dense, factors, price)
    saved, spent = _foretold(seen, factors, worth / work)
    thresholds = np.multiply.outer(np.sqrt(PRICES), factors).astype(np.float32)

    heads = [_Head(0.0, 0.0, 0.0), *_heads(model, calibration, probes, dense, np.concatenate(saliencies[-1]).ravel())]
    for i, price in enumerate(PRICES):
        head = max(heads, key=lambda head: price * head.saved - head.divergence)
        saved[i] += head.saved
        spent[i] += head.divergence
        thresholds[i, -1] = head.threshold
    last = min(int(np.searchsorted(spent, MOST_DIVERGENCE)), len(PRICES) - 1)
    of_prompts = np.interp(PROMPT_PART * spent, *_prompts(model, calibration, probes))
    of_heads = np.interp(FAR_PART * spent, *far)
    priced = np.flatnonzero(saved[: last + 1] > 0)  # at lower prices nothing is worth its loss
    columns, at = np.column_stack([thresholds, of_heads, of_prompts])[priced], np.append(0.0, saved[priced])
    columns = np.concatenate([np.zeros_like(columns[:1]), columns])
    # Between two prices too: the head's gate is opened all at once.
    wanted = np.linspace(0, at[-1], points)
    rows = np.stack([np.interp(wanted, at, column) for column in columns.T], 1).astype(np.float32)
    for row in rows:
        # Sequences that are computed together had better be dense at the same gates: weights are read both ways if not.
        row[: len(seen)] *= [own.opened(threshold) > 0.5 for own, threshold in zip(seen, row, strict=False)]
    return [(_of_all(model, row[:-2], float(row[-2])), np.full(shape.layers, row[-1], np.float32)) for row in rows]


def _of_all(model: LanguageModel, of_channels: NDArray[Any], of_heads: float = 0.0) -> Array:
    """Thresholds [gates] of steps, from those of gates on channels, and the one that all gates on heads have."""
    thresholds = np.full(len(model.network.gates), of_heads, np.float32)
    thresholds[channel_gates(model.network)] = of_channels
    return thresholds


def far_losses(model: LanguageModel, texts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """The divergence from dense of the tokens of long texts, rising, and the threshold of the gates on heads at which
    it is that, all others open. Which heads read far positions depends on the steps before: so each token is one."""

    def stepped(threshold: float) -> list[Array]:
        row = _of_all(model, np.zeros(len(channel_gates(model.network))), threshold)
        return [step_log_probabilities(model.network, tokens, row, FAR_FROM) for tokens in texts]

    texts = [tokens for tokens in texts if len(tokens) >= FAR_FROM + FAR_LEAST]
    if not texts:
        return np.zeros(1, np.float32), np.zeros(1, np.float32)
    dense = stepped(0.0)
    thresholds = np.array([0.0, *FAR_THRESHOLDS], np.float32)
    found = [0.0, *(_divergence(dense, stepped(threshold)) for threshold in FAR_THRESHOLDS)]
    return np.maximum.accumulate(np.array(found, np.float32)), thresholds


@dataclass(frozen=True, slots=True)
class _Seen:
    """The saliencies of a gate's channels at some positions, [n, channels], each row from the least on, and what
    reading so many of them coarsely is foretold to cost, in nats, [n, channels + 1]."""

    ordered: Array
    costs: Array

    @classmethod
    def of(cls, saliency: Array) -> "_Seen":
        ordered = np.sort(saliency, 1)
        costs = np.zeros((len(ordered), ordered.shape[1] + 1), np.float32)
        np.cumsum(0.5 * ordered**2, 1, out=costs[:, 1:])
        return cls(ordered, costs)

    def opened(self, threshold: float) -> float:
        """The share of positions that are not dense under this threshold."""
        active = (self.ordered > threshold).mean(1)
        return float((active <= kernels.SHARE_BESIDE_COARSE).mean())

    def under(self, threshold: float) -> tuple[float, float]:
        """The channels' worth of work that a position spares under this threshold, and its cost; means."""
        count, channels = self.ordered.shape
        left = (self.ordered <= threshold).sum(1)
        left[channels - left > kernels.SHARE_BESIDE_COARSE * channels] = 0
        return float(spared(channels, channels - left, np.True_).mean()), float(self.costs[range(count), left].mean())


def _foretold(
    seen: Sequence[_Seen], factors: NDArray[np.float64], worth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What gates save at each price, of a dense step's work, and what they cost, in nats, where the thresholds at a
    price of 1 are `factors`; `worth` is that of a channel of each, of the same work."""
    saved, spent = np.zeros(len(PRICES)), np.zeros(len(PRICES))
    for own, factor, channel in zip(seen, factors, worth, strict=False):
        for i, price in enumerate(PRICES):
            spares, costs = own.under(float(np.sqrt(price) * factor))
            saved[i] += spares * channel
            spent[i] += costs
    return saved, spent


def _prompts(
    model: LanguageModel, calibration: dict[str, Array], probes: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    """The divergence from dense of the tokens behind a prompt, rising, and the threshold of all layers at which it is
    that. All positions have the same neurons, and the tokens of a prompt themselves are known: so it is measured."""
    network, norms = model.network, _neuron_norms(model, calibration)
    met: list[Array] = []

    def all_of_them(layer: int, gates: Array) -> None:
        met.append(pooled(gates) * norms[layer])

    def behind(threshold: float) -> list[Array]:
        gates = PromptGates(norms, np.full(len(norms), threshold, np.float32))
        return [log_probabilities(network, tokens, prompt=gates) for tokens in probes]

    for tokens in probes:
        network.advance(tokens[: len(tokens) // 2], network.start(), select=all_of_them)
    dense = behind(0.0)
    thresholds = np.append(0.0, np.quantile(np.concatenate(met), PROMPT_SHARES)).astype(np.float32)
    found = [_divergence(dense, behind(float(threshold))) for threshold in thresholds]
    return np.maximum.accumulate(found), thresholds


@dataclass(frozen=True, slots=True)
class _Head:
    """A threshold of the head: the share of the work that it saves, and the divergence from dense in nats a token."""

    threshold: float
    saved: float
    divergence: float


def _heads(
    model: LanguageModel,
    calibration: dict[str, Array],
    probes: Sequence[Sequence[int]],
    dense: Sequence[Array],
    saliency: Array,
) -> list[_Head]:
    network, found = model.network, []
    for share in HEAD_SHARES:
        thresholds = np.zeros(len(network.gates), np.float32)
        thresholds[-1] = np.quantile(saliency, share)
        mask = masking(network, calibration, thresholds)
        gated = [log_probabilities(network, tokens, mask) for tokens in probes]
        found.append(_Head(float(thresholds[-1]), _saved(model, mask), _divergence(dense, gated)))
    return found


def _balanced(
    model: LanguageModel,
    calibration: dict[str, Array],
    probes: Sequence[Sequence[int]],
    dense: Sequence[Array],
    thresholds: NDArray[np.float64],
    price: float,
) -> NDArray[np.float64]:
    """The thresholds [gates] at a price of 1, changed for each kind of gate so that where it is closed a little further
    at this price, each kind loses as much for the work that it saves. Alone a channel's loss is as foretold; that of
    many in one product may be more than their sum, or less."""
    kinds = np.array([gate.rpartition(".")[2] for gate in model.network.gates if has_channels(gate)])

    def tried(thresholds: NDArray[np.float64]) -> tuple[float, float]:
        mask = masking(model.network, calibration, _of_all(model, np.sqrt(price) * thresholds))
        gated = [log_probabilities(model.network, tokens, mask) for tokens in probes]
        return _divergence(dense, gated), _saved(model, mask)

    for _ in range(2):
        before, prices = tried(thresholds), []
        for kind in CHANNEL_GATES:
            after = tried(np.where(kinds == kind, 1.25 * thresholds, thresholds))
            prices.append(max(after[0] - before[0], 1e-9) / max(after[1] - before[1], 1e-9))
        changes = np.clip(np.sqrt(np.median(prices) / np.array(prices)), 0.7, 1.4)
        thresholds = thresholds * np.append(np.tile(changes, len(kinds) // len(CHANNEL_GATES)), 1.0)
    return thresholds


def _divergence(dense: Sequence[Array], gated: Sequence[Array]) -> float:
    """Kullback and Leibler's, the mean over the positions of all windows."""
    return float(np.mean([(np.exp(a) * (a - b)).sum(1).mean() for a, b in zip(dense, gated, strict=True)]))


def _saved(model: LanguageModel, mask: Masking) -> float:
    """The share of a step's dense work that is not done: without that of channels that are skipped, and with what
    turning the head's inputs and computing logits again takes."""
    shape = model.network.shape
    channels, worth = (np.array(part) for part in shape.gates())
    skipped = mask.spared / np.maximum(mask.met, 1) * channels * worth
    more = (mask.again / mask.met[-1] + (mask.thresholds[-1] > 0)) * shape.hidden**2
    return float((skipped.sum() - more) / shape.macs(0, 1, True))


def _point(
    level: float, model: LanguageModel, mask: Masking, prompt: PromptGates, dense: Array, gated: Array
) -> OperatingPoint:
    """What gates did in the second halves of windows whose first halves were prompts, from the losses there."""
    network = model.network
    channels = np.array(network.shape.gates()[0])
    ratio, lower = perplexity_ratio(dense, gated)
    known = zip((*network.gates, *network.prompt_gates), (*mask.thresholds, *prompt.thresholds), strict=True)
    return OperatingPoint(
        level=level,
        thresholds={gate: float(f"{value:.5g}") for gate, value in known},
        skip_rate=float(1 - (mask.active / np.maximum(mask.met, 1) * channels).sum() / channels[mask.met > 0].sum()),
        macs_ratio=1 - _saved(model, mask),
        accuracy=None,
        accuracy_lower=None,
        agreement=1.0 if level == 0 else ratio,
        agreement_lower=1.0 if level == 0 else lower,
    )
