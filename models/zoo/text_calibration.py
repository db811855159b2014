"""The profile of a model of texts, and its lean layers, from unlabelled texts. Needs no torch: it runs the
serving code."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.gating.agreement import CONFIDENCE, agreements, operating_point
from models.gating.greedy import Evaluate, allocate, spread
from models.gating.profile import OperatingPoint, Profile
from models.gating.stages import allocate_in_stages
from models.model import GateContext, Tensors
from models.zoo import text_data
from models.zoo.bert import DENSE
from models.zoo.lean_fitting import fit_lean
from models.zoo.lean_layers import LeanLayers
from models.zoo.text_inputs import TextModel, request_of, stacked
from models.zoo.text_model import open_text_model
from models.zoo.text_reader import Tokens

POINTS = 13
POSITION_GRID = tuple(0.025 * step for step in range(1, 21))
"""Thresholds to try for each gate on positions."""

HEAD_GRID = tuple(0.001 * 2 ** (0.5 * step) for step in range(12))
"""Thresholds to try for each gate on heads: shares of the variance behind a layer's norm."""

LEAST_QUALITY = 0.9
"""The agreement with dense at which the dial ends."""

CHEAP = 0.08
"""The price, in agreement for all of the work, up to which positions are joined and heads left out before tuned halves
are lean."""

LEAST_THRESHOLD = 1e-6
"""Of a gate that loses nothing at all."""

FITTING_TEXTS, TUNING_TEXTS = 1000, 120
"""At most so many, to fit the lean layers on and to find the thresholds on."""


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
    lean: LeanLayers | None = None,
    tuned: bool = False,
    points: int = POINTS,
) -> tuple[Profile, LeanLayers]:
    """Lean layers, unless they are there already, and thresholds from `tuning`: allocated greedily, or, of layers that
    were `tuned` together, in stages. What to expect of them is measured on `held_out`. For a model of pairs there is a
    tab between both texts. `report` is called with the share done, 0 to 1."""
    random = np.random.default_rng(0)
    texts = [tuning[i] for i in random.permutation(len(tuning))[:FITTING_TEXTS]]
    dense = open_text_model(name, folder)
    sequences = [tokens for text in texts for tokens in dense.read(request_of(text, dense))]
    if lean is None:
        lean = fit_lean(dense.encoder, sequences, lambda done: report(0.3 * done))
    model = open_text_model(name, folder, lean=lean)
    encoder = model.encoder
    freely = dict.fromkeys(encoder.position_gates, POSITION_GRID) | dict.fromkeys(encoder.head_gates, HEAD_GRID)
    # Thresholds between two points are between theirs: so such a gate closes half way.
    halves: dict[str, tuple[float, ...]] = {}
    halves |= {gate: (2 * saliency + LEAST_THRESHOLD,) for gate, saliency in encoder.channel_gates.items()}
    evaluate = _evaluation(model, sequences[:TUNING_TEXTS])

    def allocated(done: float) -> None:
        report(0.3 + 0.4 * done)

    if tuned:
        path = allocate_in_stages(freely, halves, evaluate, CHEAP, LEAST_QUALITY, allocated)
    else:
        path = allocate(freely | halves, evaluate, LEAST_QUALITY, allocated)
    levels = np.linspace(0, 1, points)
    settings = list(zip(levels.tolist(), spread(path, points), strict=True))
    return _measured(model, settings, held_out, lambda done: report(0.7 + 0.3 * done)), lean


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


def _mixed(documents: Sequence[str]) -> list[str]:
    """Of every three documents one as it is, one by its first sentence, and one by its second and third."""
    texts = []
    for i, document in enumerate(documents):
        sentences = text_data.sentences(document)
        texts.append((document, sentences[0], " ".join(sentences[1:3]) or sentences[0])[i % 3])
    return texts
