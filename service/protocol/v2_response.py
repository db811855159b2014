"""An inference response of the Open Inference Protocol v2: named tensors in, bytes out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from models.model import TensorSpec
from service.protocol.datatypes import DATATYPES, Tensor, encode_binary, encode_json
from service.protocol.v2_request import JSON_LENGTH_HEADER, RequestedOutput


def render_infer(
    model: str,
    version: str,
    request_id: str,
    specs: Sequence[TensorSpec],
    tensors: Mapping[str, Tensor],
    requested: Sequence[RequestedOutput],
    parameters: Mapping[str, Any],
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers that describe it (Content-Type; Inference-Header-Content-Length with binary outputs).

    Numbers in ``parameters`` that JSON lacks (NaN, infinities) are written as null. Raises InvalidRequest where an
    output has no JSON form and binary data was not asked for.
    """
    by_name = {spec.name: spec for spec in specs}
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for index, want in enumerate(requested):
        spec, tensor = by_name[want.name], tensors[want.name]
        datatype = spec.datatype
        if want.classes:
            tensor, datatype = classify(tensor, want.classes, spec.labels, batched=spec.shape[:1] == (-1,)), "BYTES"
        output: dict[str, Any] = {"name": want.name, "datatype": datatype, "shape": tensor.shape}
        if want.binary:
            binary.append(encode_binary(tensor, DATATYPES[datatype]))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = encode_json(tensor, DATATYPES[datatype], f"outputs[{index}].parameters.binary_data")
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id:
        document["id"] = request_id
    document |= {"parameters": parameters, "outputs": outputs}
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(text))}
    return b"".join((text, *binary)), headers


def classify(scores: Tensor, classes: int, labels: Sequence[str], batched: bool) -> Tensor:
    """The ``classes`` highest scores as BYTES "score:index[:label]", highest first, equal ones by index.

    Shape [batch, n] with n = min(classes, scores per item) where the first dimension is the batch, else [n], as in
    Triton's classification extension.
    """
    batch = scores.shape[0] if batched else 1
    rows = scores.reshape(batch, math.prod(scores.shape[1:] if batched else scores.shape)).astype(np.float64)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :classes]
    strings = np.empty(order.shape, dtype=object)
    for row, indices in enumerate(order.tolist()):
        for rank, index in enumerate(indices):
            label = f":{labels[index]}" if index < len(labels) else ""
            strings[row, rank] = f"{rows[row, index]:f}:{index}{label}".encode()
    return strings if batched else strings[0]
