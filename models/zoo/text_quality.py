"""What a model of texts does at each of its operating points, on texts that neither calibration nor the profile saw:
how far its answers agree with the dense ones, and, of embeddings, whether documents stay as alike as they were."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.agreement import CONFIDENCE, Agreements, agreements, mean_lower_bound, spearman
from models.model import GateContext, Tensors
from models.zoo.text_data import RatedDocuments
from models.zoo.text_inputs import TextModel, request_of

TIMED_TEXTS = 40
TURNS = 3
RESAMPLES = 200
"""Of the rated documents, behind each bound of a rank correlation."""


def measure_texts(
    model: TextModel, texts: Sequence[str], rated: RatedDocuments | None, report: Callable[[float], None]
) -> dict[str, Any]:
    """Everything that `sluice quality` reports, as plain data; without `rated`, nothing of documents. `report` is
    called with the share done."""
    requests: list[Tensors] = [request_of(text, model) for text in texts]
    documents: list[Tensors] = [request_of(text, model) for text in (rated.texts if rated else ())]
    levels = [point.level for point in model.profile.points]
    dense, dense_documents = _dense(model, requests), _dense(model, documents)
    seconds = _median_seconds(model, levels, requests[:TIMED_TEXTS])
    rows = []
    for i, level in enumerate(levels):
        found = agreements(model.run, model.agreement, requests, dense, level)
        row: dict[str, Any] = {
            "level": level,
            "macs_ratio": float(found.macs_ratio.mean()),
            "skip_rate": float(found.skip_rate.mean()),
            "agreement": float(found.agreement.mean()),
            "agreement_lower": mean_lower_bound(found.agreement),
            "agreement_worst": float(np.quantile(found.agreement, 0.05)),
            "ms": seconds[i] * 1e3,
            "time_ratio": seconds[i] / seconds[0],
        }
        if rated is not None:
            row["documents"] = _documents(model, documents, dense_documents, rated, level)
        rows.append(row)
        report((i + 1) / len(levels))
    return {
        "model": model.name,
        "texts": len(requests),
        "documents": len(documents),
        "confidence": CONFIDENCE,
        "points": rows,
    }


def spearman_lower(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The one-sided lower confidence bound of the rank correlation of two symmetric matrices [n, n] over their pairs.
    What is drawn again is the n items (bootstrap, Efron 1979): pairs that share one are not independent."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(a), len(a))
        first, second = np.triu_indices(len(a), 1)
        first, second = drawn[first], drawn[second]
        apart = first != second
        found.append(spearman(a[first[apart], second[apart]], b[first[apart], second[apart]]))
    return float(np.quantile(found, 1 - CONFIDENCE))


def _dense(model: TextModel, requests: Sequence[Tensors]) -> list[Tensors]:
    return [model.run(inputs, GateContext(0.0)) for inputs in requests]


def _documents(
    model: TextModel, requests: list[Tensors], dense: list[Tensors], rated: RatedDocuments, level: float
) -> dict[str, float]:
    """How alike each two documents are, by the model at this level, by the dense one and by people."""
    outputs = []

    def run(inputs: Tensors, context: GateContext) -> Tensors:
        outputs.append(model.run(inputs, context))
        return outputs[-1]

    found: Agreements = agreements(run, model.agreement, requests, dense, level)
    alike, wanted, people = _alike(outputs), _alike(dense), rated.ratings
    pairs = rated.pairs
    return {
        "macs_ratio": float(found.macs_ratio.mean()),
        "cosine": float(found.agreement.mean()),
        "spearman": spearman(alike[pairs], wanted[pairs]),
        "spearman_lower": 1.0 if level == 0 else spearman_lower(alike, wanted),
        "spearman_people": spearman(alike[pairs], people[pairs]),
        "spearman_people_lower": spearman_lower(alike, people),
    }


def _alike(outputs: Sequence[Tensors]) -> NDArray[np.float32]:
    embeddings = np.concatenate([output["embedding"] for output in outputs])
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines: NDArray[np.float32] = unit @ unit.T
    return cosines


def _median_seconds(model: TextModel, levels: list[float], requests: Sequence[Tensors]) -> list[float]:
    """The median time of a text at each level; the levels take turns at each text."""
    times: list[list[float]] = [[] for _ in levels]
    for _ in range(TURNS):
        for inputs in requests:
            for level, taken in zip(levels, times, strict=True):
                started = perf_counter()
                model.run(inputs, GateContext(level))
                taken.append(perf_counter() - started)
    return [float(np.median(taken)) for taken in times]
