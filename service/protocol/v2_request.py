"""An inference request of the Open Inference Protocol v2: bytes in, named tensors and options out.

The body is JSON, or, with the header Inference-Header-Content-Length, so many bytes of JSON and then the binary tensors
in the JSON's order. The header's value 0 says that the whole body is the one input's data (Triton's raw request).
Nothing here waits or decides; whatever cannot be used raises InvalidRequest with the field's path, "inputs[0].shape".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.model import TensorSpec
from service.engine.request import RequestOptions
from service.errors import InvalidRequest, TooLarge, Unsupported
from service.protocol.datatypes import DATATYPES, MAX_ELEMENTS, Tensor, decode_binary, decode_json
from service.protocol.limits import Limits
from service.protocol.non_finite import non_finite_field
from service.protocol.parameters import V2_OPTIONS, check_parameter_types, request_options

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
_NON_FINITE_SEARCH = 64 * 1024


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output to return: as binary data or JSON; ``classes`` > 0 asks for so many labels in place of the tensor."""

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request. ``outputs`` are in the order in which they are to be returned."""

    id: str
    inputs: dict[str, Tensor]
    outputs: tuple[RequestedOutput, ...]
    options: RequestOptions


def parse_infer(
    body: bytes,
    json_length: str | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    limits: Limits,
) -> InferRequest:
    """Parse one decompressed body; ``json_length`` is the header's value, None where it was not sent.

    Names, datatypes and ranks are held against the model's ``inputs`` and ``outputs`` before any data is decoded.
    Raises InvalidRequest, TooLarge (JSON part over its limit) or Unsupported (shared memory).
    """
    length = _json_length(json_length, len(body))
    if length == 0:
        return _raw_request(body, inputs, outputs)
    view = memoryview(body)
    document = parse_json_object(view[: len(body) if length is None else length], limits)

    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise InvalidRequest("must be a string", "id")
    parameters = check_parameter_types(document.get("parameters"), "parameters")
    options = request_options(parameters, options=V2_OPTIONS)
    binary_output = _boolean(parameters, "binary_data_output", "parameters", default=False)
    tensors = _inputs(document, view[len(body) if length is None else length :], inputs, limits, length is not None)
    return InferRequest(request_id, tensors, _outputs(document, outputs, limits, binary_output), options)


def parse_json_object(text: memoryview | bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object in ``text``; InvalidRequest for anything else or too deep, TooLarge over the JSON limits."""
    if len(text) > limits.json_bytes:
        raise TooLarge(
            f"body: its JSON is over the limit of {limits.json_bytes} bytes; send large tensors as binary data"
        )
    if len(text) > limits.values and _values_at_most(bytes(text)) > limits.values:
        raise TooLarge(f"body: its JSON is over the limit of {limits.values} values; send tensors as binary data")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if field := non_finite_field(bytes(text[:_NON_FINITE_SEARCH])):
            raise InvalidRequest("must be a finite number, and one that a double can hold", field) from None
        raise InvalidRequest(f"is not valid JSON ({error})", "body") from None
    if not isinstance(document, dict):
        raise InvalidRequest("must be a JSON object", "body")
    return document


def _values_at_most(text: bytes) -> int:
    # Every value but the first follows one of these, and counting bytes is a thousand times faster than parsing.
    return sum(map(text.count, (b",", b":", b"[", b"{")))


def _json_length(header: str | None, body_length: int) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal()):
        raise InvalidRequest("must be a whole number of bytes", JSON_LENGTH_HEADER)
    # Longer than any length in use, and int() refuses thousands of digits.
    if len(header) > 19 or int(header) > body_length:
        raise InvalidRequest(f"is larger than the body of {body_length} bytes", JSON_LENGTH_HEADER)
    return int(header)


def _raw_request(body: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> InferRequest:
    needed = [spec for spec in inputs if not spec.optional]
    if len(needed) != 1:
        raise InvalidRequest(f"0 is for models with one input, and this one has {len(needed)}", JSON_LENGTH_HEADER)
    spec = needed[0]
    datatype = DATATYPES[spec.datatype]
    fixed = math.prod(size for size in spec.shape if size != -1)
    variable = spec.shape.count(-1)
    if datatype.wire_size == 0:
        # The whole body is one element, without its length.
        if fixed != 1:
            raise InvalidRequest(f"the input '{spec.name}' takes {fixed} elements, and raw data is one", "body")
        body = len(body).to_bytes(4, "little") + body
        elements = 1
    else:
        elements, rest = divmod(len(body), datatype.wire_size)
        if rest or elements % fixed or (variable == 0 and elements != fixed):
            raise InvalidRequest(
                f"{len(body)} bytes are not a tensor '{spec.name}' of {spec.datatype} {list(spec.shape)}", "body"
            )
    # With several variable dimensions the leading ones, the batch among them, are 1, and the last is what is left.
    sizes = [1] * (variable - 1) + [elements // fixed]
    shape = tuple(sizes.pop(0) if size == -1 else size for size in spec.shape)
    tensor = decode_binary(body, datatype, shape, "body")
    requested = tuple(RequestedOutput(output.name, binary=True) for output in outputs)
    return InferRequest("", {spec.name: tensor}, requested, RequestOptions())


def _inputs(
    document: Mapping[str, Any], binary: memoryview, specs: Sequence[TensorSpec], limits: Limits, has_binary: bool
) -> dict[str, Tensor]:
    by_name = {spec.name: spec for spec in specs}
    tensors: dict[str, Tensor] = {}
    offset = 0
    for index, item in enumerate(_list_of_objects(document.get("inputs"), "inputs", limits.tensors)):
        field = f"inputs[{index}]"
        name = _name(item, field, by_name, tensors)
        spec = by_name[name]
        if item.get("datatype") != spec.datatype:
            raise InvalidRequest(f"must be '{spec.datatype}' for the input '{name}'", f"{field}.datatype")
        shape = _shape(item.get("shape"), spec, f"{field}.shape", limits.rank)
        parameters = check_parameter_types(item.get("parameters"), f"{field}.parameters")
        _refuse_shared_memory(parameters, field)
        if spec.datatype == "BYTES" and math.prod(shape) > limits.values:
            raise TooLarge(f"{field}.shape: is over the limit of {limits.values} BYTES elements")
        size = parameters.get("binary_data_size")
        if size is None:
            if "data" not in item:
                raise InvalidRequest("is missing; give data or parameters.binary_data_size", f"{field}.data")
            tensors[name] = decode_json(item["data"], DATATYPES[spec.datatype], shape, f"{field}.data")
            continue
        size_field = f"{field}.parameters.binary_data_size"
        if type(size) is not int or size < 0:
            raise InvalidRequest("must be a whole number of bytes", size_field)
        if "data" in item:
            raise InvalidRequest("must be absent when binary_data_size is given", f"{field}.data")
        if not has_binary:
            raise InvalidRequest(f"needs the header {JSON_LENGTH_HEADER}", size_field)
        if size > len(binary) - offset:
            raise InvalidRequest(f"is {size}, but only {len(binary) - offset} bytes are left in the body", size_field)
        tensors[name] = decode_binary(binary[offset : offset + size], DATATYPES[spec.datatype], shape, size_field)
        offset += size
    missing = [spec.name for spec in specs if spec.name not in tensors and not spec.optional]
    if missing:
        raise InvalidRequest(f"lacks the input '{missing[0]}'", "inputs")
    if offset != len(binary):
        raise InvalidRequest(f"{len(binary) - offset} bytes follow the last tensor", "body")
    return tensors


def _outputs(
    document: Mapping[str, Any], specs: Sequence[TensorSpec], limits: Limits, binary_output: bool
) -> tuple[RequestedOutput, ...]:
    if not document.get("outputs") and isinstance(document.get("outputs", []), list):
        return tuple(RequestedOutput(spec.name, binary_output or spec.datatype == "BF16") for spec in specs)
    by_name = {spec.name: spec for spec in specs}
    requested: dict[str, RequestedOutput] = {}
    for index, item in enumerate(_list_of_objects(document["outputs"], "outputs", limits.tensors)):
        field = f"outputs[{index}]"
        name = _name(item, field, by_name, requested)
        parameters = check_parameter_types(item.get("parameters"), f"{field}.parameters")
        _refuse_shared_memory(parameters, field)
        binary = _boolean(parameters, "binary_data", f"{field}.parameters", default=binary_output)
        classes = parameters.get("classification", 0)
        if type(classes) is not int or not 0 <= classes < 2**31:
            raise InvalidRequest("must be a whole number of classes", f"{field}.parameters.classification")
        if classes and by_name[name].datatype in ("BYTES", "BOOL"):
            raise InvalidRequest(f"'{name}' holds no scores", f"{field}.parameters.classification")
        if by_name[name].datatype == "BF16" and not (binary or classes):
            raise InvalidRequest("must be true: BF16 has no JSON form", f"{field}.parameters.binary_data")
        requested[name] = RequestedOutput(name, binary, classes)
    return tuple(requested.values())


def _list_of_objects(value: Any, field: str, limit: int) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("must be an array of at least one tensor", field)
    if len(value) > limit:
        raise InvalidRequest(f"has {len(value)} tensors; the limit is {limit}", field)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidRequest("must be an object", f"{field}[{index}]")
    return value


def _name(item: Mapping[str, Any], field: str, known: Mapping[str, TensorSpec], seen: Mapping[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise InvalidRequest("must be a string", f"{field}.name")
    if name not in known:
        raise InvalidRequest(f"the model has no '{name[:64]}', only {', '.join(known)}", f"{field}.name")
    if name in seen:
        raise InvalidRequest(f"'{name}' is given twice", f"{field}.name")
    return name


def _shape(value: Any, spec: TensorSpec, field: str, max_rank: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > max_rank:
        raise InvalidRequest(f"must be an array of at most {max_rank} sizes", field)
    for size in value:
        if type(size) is not int or size < 0:
            raise InvalidRequest("must hold whole numbers that are not negative", field)
    if math.prod(max(size, 1) for size in value) > MAX_ELEMENTS:
        raise InvalidRequest("is too large", field)
    if len(value) != len(spec.shape) or any(want not in (-1, got) for got, want in zip(value, spec.shape, strict=True)):
        raise InvalidRequest(f"{value} does not fit {list(spec.shape)} of '{spec.name}' (-1 is any size)", field)
    return tuple(value)


def _refuse_shared_memory(parameters: Mapping[str, Any], field: str) -> None:
    if "shared_memory_region" in parameters:
        raise Unsupported(f"{field}.parameters.shared_memory_region: shared memory is not supported")


def _boolean(parameters: Mapping[str, Any], name: str, field: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest("must be true or false", f"{field}.{name}")
    return value
