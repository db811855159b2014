"""What the soak sends: requests for the image model, good and bad, as bytes."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.connection import encode
from loadtest.workload import Post

_BAD: tuple[dict[str, Any], ...] = (
    {"shape": [1, 27, 28]},
    {"shape": [-1, 28, 28]},
    {"shape": [2**63, 28, 28]},
    {"datatype": "FP32"},
    {"name": "picture"},
    {"data": [0] * 783},
    {"data": [256] * 784},
    {"data": ["0"] * 784},
    {"data": None},
)
_BAD_PARAMETERS: tuple[dict[str, Any], ...] = (
    {"slo_ms": 0},
    {"level": 2},
    {"timeout": -1},
    {"note": [1]},
)


class Requests:
    """Makes them at random, but the same with the same `random`. `images` is uint8 [n, height, width]."""

    def __init__(self, host: str, model: str, images: NDArray[np.uint8], random: Random) -> None:
        self._host, self._model = host, model
        self._images = images
        self._random = random

    def good(self) -> bytes:
        """One to four images, as JSON or binary, now and then with wishes of its own; some of these cannot be met."""
        start = self._random.randrange(len(self._images) - 4)
        images = self._images[start : start + self._random.choice((1, 1, 1, 2, 4))]
        wishes: dict[str, Any] = self._random.choice(
            ({}, {}, {}, {"level": 0.5}, {"slo_ms": 4.0}, {"timeout": 3000}, {"priority": 1}, {"quality_floor": 0.99})
        )
        if self._random.random() < 0.5:
            return self._post({"inputs": [_tensor(images, data=images.ravel().tolist())], "parameters": wishes})
        binary = {"binary_data_size": images.nbytes}
        return self._post({"inputs": [_tensor(images, parameters=binary)], "parameters": wishes}, images.tobytes())

    def bad(self) -> bytes:
        """One that has to be answered with a 4xx."""
        image = self._images[:1]
        tensor = _tensor(image, data=image.ravel().tolist())
        match self._random.randrange(6):
            case 0:
                return self._post({"inputs": [tensor], "parameters": self._random.choice(_BAD_PARAMETERS)})
            case 1:
                return self._send(b"[" * self._random.randrange(1, 50_000))
            case 2:
                cut = _tensor(image, parameters={"binary_data_size": 784})
                return self._post({"inputs": [cut]}, bytes(self._random.randrange(784)))
            case 3:
                return self._send(b"not gzip", {"Content-Encoding": "gzip"})
            case 4:
                return encode(Post("/v2/models/nothing/infer", {}, b"{}"), self._host)
            case _:
                return self._post({"inputs": [tensor | self._random.choice(_BAD)]})

    def _post(self, document: dict[str, Any], binary: bytes = b"") -> bytes:
        text = json.dumps(document).encode()
        return self._send(text + binary, {"Inference-Header-Content-Length": str(len(text))} if binary else {})

    def _send(self, body: bytes, headers: dict[str, str] | None = None) -> bytes:
        return encode(Post(f"/v2/models/{self._model}/infer", headers or {}, body), self._host)


def _tensor(images: NDArray[np.uint8], **more: Any) -> dict[str, Any]:
    shape: Sequence[int] = images.shape
    return {"name": "image", "datatype": "UINT8", "shape": list(shape), **more}
