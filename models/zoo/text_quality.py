"""What a model of text embeddings does at each of its operating points, on texts that neither calibration nor the
profile saw: how near the embeddings are to the dense ones, and whether documents stay as alike as they were."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.agreement import Agreements, agreements, mean_lower_bound, spearman
from models.model import GateContext, Tensors
from models.zoo import text_data
from models.zoo.text_data import RatedDocuments
from models.zoo.text_embeddings import TextEmbedder

TIMED_TEXTS = 40
TURNS = 3


def measure_texts(model: TextEmbedder, rated: RatedDocuments, report: Callable[[float], None]) -> dict[str, Any]:
    """Everything that `sluice quality` reports, as plain data; `report` is called with the share done."""
    sentences, documents = _requests(text_data.sample()), _requests(rated.texts)
    levels = [point.level for point in model.profile.points]
    dense_sentences, dense_documents = _dense(model, sentences), _dense(model, documents)
    seconds = _median_seconds(model, levels, sentences[:TIMED_TEXTS])
    rows = []
    for i, level in enumerate(levels):
        found = agreements(model.run, model.agreement, sentences, dense_sentences, level)
        rows.append(
            {
                "level": level,
                "macs_ratio": float(found.macs_ratio.mean()),
                "skip_rate": float(found.skip_rate.mean()),
                "cosine": float(found.agreement.mean()),
                "cosine_lower": mean_lower_bound(found.agreement),
                "cosine_worst": float(np.quantile(found.agreement, 0.05)),
                "ms": seconds[i] * 1e3,
                "time_ratio": seconds[i] / seconds[0],
                "documents": _documents(model, documents, dense_documents, rated, level),
            }
        )
        report((i + 1) / len(levels))
    return {"model": model.name, "sentences": len(sentences), "documents": len(documents), "points": rows}


def _requests(texts: list[str]) -> list[Tensors]:
    return [{"text": np.array([text.encode()], object)} for text in texts]


def _dense(model: TextEmbedder, requests: list[Tensors]) -> list[Tensors]:
    return [model.run(inputs, GateContext(0.0)) for inputs in requests]


def _documents(
    model: TextEmbedder, requests: list[Tensors], dense: list[Tensors], rated: RatedDocuments, level: float
) -> dict[str, float]:
    """How alike each two documents are, by the model at this level, by the dense one and by people."""
    outputs = []

    def run(inputs: Tensors, context: GateContext) -> Tensors:
        outputs.append(model.run(inputs, context))
        return outputs[-1]

    found: Agreements = agreements(run, model.agreement, requests, dense, level)
    alike, wanted = _alike(outputs)[rated.pairs], _alike(dense)[rated.pairs]
    return {
        "macs_ratio": float(found.macs_ratio.mean()),
        "cosine": float(found.agreement.mean()),
        "spearman": spearman(alike, wanted),
        "spearman_people": spearman(alike, rated.ratings[rated.pairs]),
    }


def _alike(outputs: Sequence[Tensors]) -> NDArray[np.float32]:
    embeddings = np.concatenate([output["embedding"] for output in outputs])
    cosines: NDArray[np.float32] = embeddings @ embeddings.T
    return cosines


def _median_seconds(model: TextEmbedder, levels: list[float], requests: list[Tensors]) -> list[float]:
    """The median time of a text at each level; the levels take turns at each text."""
    times: list[list[float]] = [[] for _ in levels]
    for _ in range(TURNS):
        for inputs in requests:
            for level, taken in zip(levels, times, strict=True):
                started = perf_counter()
                model.run(inputs, GateContext(level))
                taken.append(perf_counter() - started)
    return [float(np.median(taken)) for taken in times]
