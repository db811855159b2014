"""Load on a model of embeddings: a text a request in the Open Inference Protocol, judged by the cosine to what the
dense model makes of it.

python -m loadtest --workload loadtest.texts:moby_dick …
locust -f loadtest/locustfile.py --workload loadtest.texts:moby_dick …
"""

import os
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.workload import Judged, Parameters, Post, Reply, refusal
from models.model import Embedder, GateContext
from models.zoo import catalog, text_data
from service.protocol.v2_request import JSON_LENGTH_HEADER

MODEL = "minilm"


class Texts:
    """A `Workload`. `wanted` are the dense embeddings, float32 [texts, size], by which answers are scored; `parameters`
    go into each request, such as `{"level": 0}`."""

    def __init__(
        self,
        texts: Sequence[str],
        wanted: NDArray[np.float32],
        model: str = MODEL,
        parameters: Parameters | None = None,
    ) -> None:
        self.model = model
        self._wanted = wanted
        self.posts = [_post(model, text, parameters or {}) for text in texts]

    def judge(self, number: int, reply: Reply) -> Judged:
        if reply.status != 200:
            return Judged(refusal(reply))
        try:
            split = int(reply.headers[JSON_LENGTH_HEADER.lower()])
            level = float(orjson.loads(reply.body[:split])["parameters"]["level"])
            score = _cosine(np.frombuffer(reply.body, "<f4", offset=split), self._wanted[number])
        except (KeyError, TypeError, ValueError):
            return Judged("error")
        return Judged("ok", level, score)


def moby_dick() -> Texts:
    """Sentences of Moby Dick, to the model that `SLUICE_TEXT_MODEL` names."""
    model, texts = os.environ.get("SLUICE_TEXT_MODEL", MODEL), text_data.sample()
    return Texts(texts, dense_embeddings(model, texts), model)


def dense_embeddings(model: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """Of each text, [texts, size]. Raises `ValueError` for a model that makes none, and as `catalog.load`."""
    loaded = catalog.load(model)
    if not isinstance(loaded, Embedder):
        raise ValueError(f"{model} makes no embeddings")
    found = [loaded.run({"text": np.array([text.encode()], object)}, GateContext(0.0))["embedding"] for text in texts]
    return np.concatenate(found)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _post(model: str, text: str, parameters: Parameters) -> Post:
    request = {
        "parameters": parameters,
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}],
        "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}],
    }
    return Post(f"/v2/models/{model}/infer", {"Content-Type": "application/json"}, orjson.dumps(request))
