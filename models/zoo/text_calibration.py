"""The profile of a model of texts, and the means of its neurons, from unlabelled texts. Needs no torch: it
runs the serving code."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.gating.agreement import CONFIDENCE, agreements, operating_point
from models.gating.greedy import Allocation, Evaluate, allocate, frontier, nearest, spread
from models.gating.neuron_means import NeuronMeans
from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, Tensors
from models.zoo import text_data
from models.zoo.bert import DENSE, Array, Bert
from models.zoo.text_inputs import TextModel, request_of, stacked
from models.zoo.text_model import open_text_model
from models.zoo.text_reader import Tokens
from models.zoo.tuned_parts import TunedParts

POINTS = 13
POSITION_GRID = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Thresholds to try for each gate on positions."""

NEURON_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Of neurons that are to be skipped, where positions cannot be joined: for each gate on them these quantiles of the
saliency are tried."""

BLOCK_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
"""The same of blocks of neurons."""

LEAST_QUALITY = 0.9
"""The agreement with dense at which the dial ends."""

SWITCH = 1e-3
"""Of the dial, between a point of the dense layers and one of the tuned ones."""

TUNING_TEXTS = 48


def default_texts() -> tuple[list[str], list[str]]:
    """Texts to find thresholds on, and others to measure them on: news, as they are and a sentence at a time, and for
    the latter sentences of Moby Dick as well. Raises `text_data.MissingData`."""
    documents = text_data.lee_background()
    tuning, held_out = documents[:200], documents[200:]
    return _mixed(tuning), [*_mixed(held_out), *text_data.sample(test=False)]


def split_texts(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """A user's own texts, for the same: every third is to be measured on. Raises `ValueError` for too few."""
    if len(texts) < 30:
        raise ValueError(f"calibration needs at least 30 texts, got {len(texts)}")
    return [text for i, text in enumerate(texts) if i % 3], list(texts[::3])


def calibrate(
    name: str,
    folder: Path,
    tuning: Sequence[str],
    held_out: Sequence[str],
    report: Callable[[float], None],
    *,
    points: int = POINTS,
) -> tuple[Profile, NeuronMeans]:
    """Means and thresholds from `tuning`, the latter allocated greedily; what to expect of them from `held_out`. For a
    model of pairs there is a tab between both texts. `report` is called with the share done, 0 to 1."""
    model, means, sequences = _prepared(name, folder, tuning)
    path = _plain_path(model, sequences, lambda done: report(0.7 * done))
    levels = np.linspace(0, 1, points)
    settings = list(zip(levels.tolist(), spread(path, points), strict=True))
    return _measured(model, settings, held_out, lambda done: report(0.7 + 0.3 * done)), means


def calibrate_tuned(
    name: str,
    folder: Path,
    tuned: TunedParts,
    tuning: Sequence[str],
    held_out: Sequence[str],
    report: Callable[[float], None],
    *,
    points: int = POINTS,
) -> tuple[Profile, NeuronMeans]:
    """As `calibrate`, of an encoder with tuned parts, whose layers are used wherever they are better than the dense
    ones with gates that need no tuning."""
    model, means, sequences = _prepared(name, folder, tuning, tuned)
    plain = _plain_path(model, sequences, lambda done: report(0.35 * done))
    evaluate = _evaluation(model, sequences)
    positions: dict[str, tuple[float, ...]] = dict.fromkeys(model.encoder.position_gates, POSITION_GRID)
    blocks = _block_grids(model.encoder, sequences)
    # So low that every block is active, and the tuned layers are used.
    lowest = dict.fromkeys(positions, 0.0) | {gate: grid[0] * 1e-3 for gate, grid in blocks.items()}
    start = Allocation(lowest, *evaluate(lowest))
    deep = allocate(positions | blocks, evaluate, LEAST_QUALITY, lambda done: report(0.35 + 0.35 * done), start)
    settings = _settings(nearest(frontier([*plain, *deep]), points), tuple(blocks))
    return _measured(model, settings, held_out, lambda done: report(0.7 + 0.3 * done)), means


def _prepared(
    name: str, folder: Path, tuning: Sequence[str], tuned: TunedParts | None = None
) -> tuple[TextModel, NeuronMeans, list[Tokens]]:
    """The model with gates, the means of its neurons, and sequences to find thresholds on."""
    random = np.random.default_rng(0)
    texts = [tuning[i] for i in random.permutation(len(tuning))[: 4 * TUNING_TEXTS]]
    plain = open_text_model(name, folder)
    sequences = [tokens for text in texts for tokens in plain.read(request_of(text, plain))]
    means = _neuron_means(plain.encoder, sequences)
    return open_text_model(name, folder, means=means, tuned=tuned), means, sequences[:TUNING_TEXTS]


def _plain_path(model: TextModel, sequences: Sequence[Tokens], report: Callable[[float], None]) -> list[Allocation]:
    """The path of the gates that need no tuning: those on positions, where the encoder has them. A position that is
    joined saves both products, and all that follows; a neuron that is skipped saves half of one, and most of what it
    saves in work is lost in time to its gate and to rows of weights that lie apart."""
    encoder = model.encoder
    grids: dict[str, tuple[float, ...]] = dict.fromkeys(encoder.position_gates, POSITION_GRID)
    return allocate(grids or _neuron_grids(encoder, sequences), _evaluation(model, sequences), LEAST_QUALITY, report)


def _settings(path: Sequence[Allocation], blocks: Sequence[str]) -> list[tuple[float, dict[str, float]]]:
    """Levels and thresholds of a path. Between a point of the dense layers and one of the tuned ones is nothing that
    was measured, so the former holds until just before the latter."""
    none = {gate: 0.0 for step in path for gate in step.thresholds}
    thresholds = [none | step.thresholds for step in path]
    used = [any(values.get(gate) for gate in blocks) for values in thresholds]
    levels = np.linspace(0, 1, len(path)).tolist()
    settings = []
    for i, level in enumerate(levels):
        if i and used[i] != used[i - 1]:
            settings.append((level - SWITCH, thresholds[i - 1]))
        settings.append((level, thresholds[i]))
    return settings


def _evaluation(model: TextModel, sequences: Sequence[Tokens]) -> Evaluate:
    """Share of the dense work, and agreement with dense, at thresholds: the means over the sequences."""
    dense = [model.answer(tokens, GateContext(0.0), DENSE) for tokens in sequences]

    def evaluate(thresholds: Mapping[str, float]) -> tuple[float, float]:
        rows = []
        for tokens, wanted in zip(sequences, dense, strict=True):
            context = GateContext(0.0)
            answer = model.answer(tokens, context, thresholds)
            rows.append((1 - context.macs_skipped_ratio, model.agreement(answer, wanted)))
        macs_ratio, quality = np.mean(rows, axis=0)
        return float(macs_ratio), float(quality)

    return evaluate


def _measured(
    model: TextModel,
    settings: Sequence[tuple[float, Mapping[str, float]]],
    held_out: Sequence[str],
    report: Callable[[float], None],
) -> Profile:
    """The profile with these levels and thresholds: what to expect of each, on texts that had no part in them."""
    requests: list[Tensors] = [request_of(text, model) for text in held_out]
    wanted = [model.run(inputs, GateContext(0.0)) for inputs in requests]
    measured: list[OperatingPoint] = []
    for i, (level, thresholds) in enumerate(settings):

        def run(inputs: Tensors, context: GateContext, thresholds: Mapping[str, float] = thresholds) -> Tensors:
            return stacked([model.answer(tokens, context, thresholds) for tokens in model.read(inputs)])

        found = agreements(run, model.agreement, requests, wanted, float(level))
        measured.append(operating_point(float(level), thresholds, found))
        report((i + 1) / len(settings))
    return Profile(model.name, len(held_out), CONFIDENCE, model.encoder.digest, tuple(measured))


def _block_grids(encoder: Bert, sequences: Sequence[Tokens]) -> dict[str, tuple[float, ...]]:
    """For each gate on blocks the thresholds that skip the shares of `BLOCK_SHARES` of them."""
    saliencies: list[list[Array]] = [[] for _ in encoder.layers]

    def watch(layer: int, x: Array, _neurons: Array) -> None:
        gate = encoder.tuned_layers[layer].blocks
        if gate is not None:
            saliencies[layer].append(gate.saliency(x))

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), watch=watch, types=tokens.types)
    return {
        gate: tuple(np.quantile(np.concatenate(found), BLOCK_SHARES).tolist())
        for gate, found in zip(encoder.block_gates, saliencies, strict=True)
    }


def _neuron_means(encoder: Bert, sequences: Sequence[Tokens]) -> NeuronMeans:
    """The mean of each layer's neurons over all positions."""
    sums = [np.zeros(encoder.shape.feed_forward) for _ in encoder.layers]

    def watch(layer: int, _x: Array, neurons: Array) -> None:
        sums[layer] += neurons.sum(0)

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), watch=watch, types=tokens.types)
    positions = sum(len(tokens) for tokens in sequences)
    return [(total / positions).astype(np.float32) for total in sums]


def _neuron_grids(encoder: Bert, sequences: Sequence[Tokens]) -> dict[str, tuple[float, ...]]:
    """For each gate on neurons the thresholds that skip the shares of `NEURON_SHARES` of them."""
    saliencies: list[list[Array]] = [[] for _ in encoder.layers]

    def watch(layer: int, _x: Array, neurons: Array) -> None:
        gate = encoder.layers[layer].gate
        if gate is not None:
            saliencies[layer].append(np.sqrt(np.square(neurons - gate.means).mean(0)) * gate.norms)

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), watch=watch, types=tokens.types)
    return {
        gate: tuple(np.quantile(np.concatenate(found), NEURON_SHARES).tolist())
        for gate, found in zip(encoder.neuron_gates, saliencies, strict=True)
    }


def _mixed(documents: Sequence[str]) -> list[str]:
    """Of every three documents one as it is, one by its first sentence, and one by its second and third."""
    texts = []
    for i, document in enumerate(documents):
        sentences = text_data.sentences(document)
        texts.append((document, sentences[0], " ".join(sentences[1:3]) or sentences[0])[i % 3])
    return texts
