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
    model: TextModel,
    texts: Sequence[str],
    rated: RatedDocuments | None,
    levels: Sequence[float],
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Everything that `sluice quality` reports of some levels, the first of which is 0, as plain data; without `rated`,
    nothing of documents. `report` is called with the share done."""
    requests: list[Tensors] = [request_of(text, model) for text in texts]
    documents: list[Tensors] = [request_of(text, model) for text in (rated.texts if rated else ())]
    dense, dense_documents = _dense(model, requests), _dense(model, documents)
    seconds, document_seconds = (_seconds(model, levels, some) for some in (requests[:TIMED_TEXTS], documents))
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
            taken = {"ms": document_seconds[i] * 1e3, "time_ratio": document_seconds[i] / document_seconds[0]}
            row["documents"] = taken | _documents(model, documents, dense_documents, rated, level)
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


def _seconds(model: TextModel, levels: Sequence[float], requests: Sequence[Tensors]) -> list[float]:
    """The mean over the texts of the median time of each, at each level; the levels take turns at each text."""
    times = np.zeros((len(levels), len(requests), TURNS))
    for turn in range(TURNS):
        for j, inputs in enumerate(requests):
            for i, level in enumerate(levels):
                started = perf_counter()
                model.run(inputs, GateContext(level))
                times[i, j, turn] = perf_counter() - started
    return [float(seconds) for seconds in np.median(times, 2).mean(1)] if requests else []
