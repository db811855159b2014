"""The profile of a model of texts, and the means of its neurons, from unlabelled texts. Needs no torch: it
runs the serving code."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.gating.agreement import CONFIDENCE, agreements, operating_point
from models.gating.greedy import allocate, spread
from models.gating.neuron_means import NeuronMeans
from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, Tensors
from models.zoo import text_data
from models.zoo.bert import DENSE, Array, Bert
from models.zoo.text_inputs import request_of, stacked
from models.zoo.text_model import open_text_model
from models.zoo.text_reader import Tokens

POINTS = 13
POSITION_GRID = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Thresholds to try for each gate on positions."""

NEURON_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Of neurons that are to be skipped: for each gate on them these quantiles of the saliency are tried."""

LEAST_QUALITY = 0.9
"""The agreement with dense at which the dial ends."""

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
    random = np.random.default_rng(0)
    texts = [tuning[i] for i in random.permutation(len(tuning))[: 4 * TUNING_TEXTS]]
    plain = open_text_model(name, folder)
    sequences = [tokens for text in texts for tokens in plain.read(request_of(text, plain))]
    means = _neuron_means(plain.encoder, sequences)
    model = open_text_model(name, folder, means=means)
    sequences = sequences[:TUNING_TEXTS]
    dense = [model.answer(tokens, GateContext(0.0), DENSE) for tokens in sequences]

    def evaluate(thresholds: Mapping[str, float]) -> tuple[float, float]:
        rows = []
        for tokens, wanted in zip(sequences, dense, strict=True):
            context = GateContext(0.0)
            answer = model.answer(tokens, context, thresholds)
            rows.append((1 - context.macs_skipped_ratio, model.agreement(answer, wanted)))
        macs_ratio, quality = np.mean(rows, axis=0)
        return float(macs_ratio), float(quality)

    encoder = model.encoder
    grids = dict.fromkeys(encoder.position_gates, POSITION_GRID) | _neuron_grids(encoder, sequences)
    path = allocate(grids, evaluate, LEAST_QUALITY, lambda done: report(0.7 * done))

    requests: list[Tensors] = [request_of(text, model) for text in held_out]
    wanted = [model.run(inputs, GateContext(0.0)) for inputs in requests]
    measured: list[OperatingPoint] = []
    for i, (level, thresholds) in enumerate(zip(np.linspace(0, 1, points), spread(path, points), strict=True)):

        def run(inputs: Tensors, context: GateContext, thresholds: Mapping[str, float] = thresholds) -> Tensors:
            return stacked([model.answer(tokens, context, thresholds) for tokens in model.read(inputs)])

        found = agreements(run, model.agreement, requests, wanted, float(level))
        measured.append(operating_point(float(level), thresholds, found))
        report(0.7 + 0.3 * (i + 1) / points)
    return Profile(name, len(held_out), CONFIDENCE, encoder.digest, tuple(measured)), means


def _neuron_means(encoder: Bert, sequences: Sequence[Tokens]) -> NeuronMeans:
    """The mean of each layer's neurons over all positions."""
    sums = [np.zeros(encoder.shape.feed_forward) for _ in encoder.layers]

    def watch(layer: int, neurons: Array) -> None:
        sums[layer] += neurons.sum(0)

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), watch=watch, types=tokens.types)
    positions = sum(len(tokens) for tokens in sequences)
    return [(total / positions).astype(np.float32) for total in sums]


def _neuron_grids(encoder: Bert, sequences: Sequence[Tokens]) -> dict[str, tuple[float, ...]]:
    """For each gate on neurons the thresholds that skip the shares of `NEURON_SHARES` of them."""
    saliencies: list[list[Array]] = [[] for _ in encoder.layers]

    def watch(layer: int, neurons: Array) -> None:
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
