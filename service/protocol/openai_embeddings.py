"""``POST /v1/embeddings`` as OpenAI's clients use it: texts in, vectors out.

The parameters of this server (`slo_ms`, `quality_floor`, `level`, `timeout`, `priority`) are fields of the request,
where the clients put their ``extra_body``; what the gates did comes back as ``sluice``, beside ``usage``.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model import Embedder
from service.engine.request import Finished, RequestOptions
from service.errors import InvalidRequest
from service.protocol.limits import Limits
from service.protocol.parameters import OPTIONS, check_parameter_types, request_options
from service.protocol.v2_infer import parameters_of
from service.protocol.v2_request import parse_json_object

ENCODINGS = ("float", "base64")
_KNOWN = frozenset({"model", "input", "encoding_format", "dimensions", "user", *OPTIONS})


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """`dimensions` is how many of each vector's values are wanted; None for all."""

    model: str
    texts: tuple[bytes, ...]
    base64: bool
    dimensions: int | None
    options: RequestOptions


def parse_embeddings(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Raises InvalidRequest naming the field, or TooLarge."""
    document = parse_json_object(body, limits)
    for name in document:
        if name not in _KNOWN:
            raise InvalidRequest(f"is not known here; known are {', '.join(sorted(_KNOWN))}", name[:64])
    document = {name: value for name, value in document.items() if value is not None}
    encoding = document.get("encoding_format", "float")
    if encoding not in ENCODINGS:
        raise InvalidRequest(f"must be one of {', '.join(ENCODINGS)}", "encoding_format")
    dimensions = document.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InvalidRequest("must be a whole number, 1 or more", "dimensions")
    own = {name: value for name, value in document.items() if name in OPTIONS}
    return EmbeddingsRequest(
        model=model_of(document),
        texts=_texts(document.get("input")),
        base64=encoding == "base64",
        dimensions=dimensions,
        options=request_options(check_parameter_types(own, ""), prefix=""),
    )


def model_of(document: dict[str, Any]) -> str:
    """The model that a request names. Raises InvalidRequest."""
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("must be the name of a model", "model")
    return model


def render_embeddings(request: EmbeddingsRequest, finished: Finished, tokens: int) -> dict[str, Any]:
    """The answer. Raises InvalidRequest where more dimensions are asked for than there are."""
    vectors: NDArray[np.float32] = shortened(finished.outputs["embedding"], request.dimensions)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, request.base64)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": usage, "sluice": parameters_of(finished)}


def check_dimensions(request: EmbeddingsRequest, model: Embedder) -> None:
    """Raises InvalidRequest where the model's vectors have fewer."""
    size = model.outputs[0].shape[-1]
    if request.dimensions is not None and request.dimensions > size:
        raise InvalidRequest(f"must be at most {size}, what {model.name} has", "dimensions")


def shortened(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first of each vector's values [n, dimensions], and unit vectors again, as OpenAI's are."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    first = vectors[:, :dimensions]
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    unit = first / np.where(lengths > 0, lengths, 1)
    return unit.astype(np.float32)


def _encoded(vector: NDArray[np.float32], as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    values: list[float] = vector.tolist()
    return values


def _texts(given: Any) -> tuple[bytes, ...]:
    texts: Sequence[Any] = [given] if isinstance(given, str) else given if isinstance(given, list) else ()
    if not texts:
        raise InvalidRequest("must be a text or a list of texts", "input")
    for index, text in enumerate(texts):
        field = "input" if isinstance(given, str) else f"input[{index}]"
        if not isinstance(text, str):
            raise InvalidRequest("must be a text; token ids are not taken, since each model has its own", field)
        if not text:
            raise InvalidRequest("must not be empty", field)
    # A lone surrogate, which JSON can hold and UTF-8 cannot, does not pass the parser.
    return tuple(text.encode() for text in texts)
