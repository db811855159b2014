"""Tensor specifications, and requests to them, that several tests share."""

import json
from typing import Any

from models.model import TensorSpec

IMAGE = (TensorSpec("image", "UINT8", (-1, 2, 3)),)
SCORES = (TensorSpec("scores", "FP32", (-1, 4), ("shirt", "coat", "bag")), TensorSpec("label", "INT64", (-1,)))
MIXED = (TensorSpec("tokens", "INT32", (-1, -1)), TensorSpec("text", "BYTES", (1,)), TensorSpec("scale", "BF16", (2,)))


def image_request(**changes: Any) -> dict[str, Any]:
    """A valid JSON request to IMAGE, with top-level keys changed, or left out where the change is `...`."""
    image = {"name": "image", "shape": [1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]}
    request = {"id": "7", "inputs": [image]} | changes
    return {key: value for key, value in request.items() if value is not ...}


def image_tensor(**changes: Any) -> dict[str, Any]:
    """The tensor of `image_request`, changed in the same way."""
    tensor = image_request()["inputs"][0] | changes
    return {key: value for key, value in tensor.items() if value is not ...}


def binary_request(document: dict[str, Any], *data: bytes) -> tuple[bytes, str]:
    """A body of JSON and binary data, and the value of its Inference-Header-Content-Length."""
    text = json.dumps(document).encode()
    return text + b"".join(data), str(len(text))
