"""The datatypes of the Open Inference Protocol, and tensors of them as JSON and as binary data.

Binary data follows Triton's binary tensor extension: little-endian, row-major, no padding, BOOL in one byte, each BYTES
element behind its length in 4 bytes. In memory BYTES is an array of ``bytes`` objects, and BF16, which numpy lacks, is
float32: widening is exact, narrowing rounds to nearest even.

    >>> decode_binary(b"\\x01\\x02", DATATYPES["UINT8"], (2,), field="inputs[0]").tolist()
    [1, 2]
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest

Tensor = NDArray[Any]

# Above every tensor that a body could hold; keeps numpy's own size arithmetic from overflowing.
MAX_ELEMENTS = 2**40


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype: its in-memory ``dtype``, the bytes of one element on the wire (0: variable) and its JSON values."""

    name: str
    dtype: np.dtype[Any]
    wire_size: int
    json_types: frozenset[type]


def _datatypes() -> Mapping[str, Datatype]:
    table = [
        Datatype("BOOL", np.dtype(np.bool_), 1, frozenset({bool})),
        Datatype("BF16", np.dtype("<f4"), 2, frozenset()),
        Datatype("BYTES", np.dtype(object), 0, frozenset({str})),
    ]
    for size in (1, 2, 4, 8):
        table.append(Datatype(f"INT{size * 8}", np.dtype(f"<i{size}"), size, frozenset({int})))
        table.append(Datatype(f"UINT{size * 8}", np.dtype(f"<u{size}"), size, frozenset({int})))
        if size > 1:
            table.append(Datatype(f"FP{size * 8}", np.dtype(f"<f{size}"), size, frozenset({int, float})))
    return MappingProxyType({datatype.name: datatype for datatype in table})


DATATYPES = _datatypes()


def decode_binary(data: memoryview | bytes, datatype: Datatype, shape: tuple[int, ...], field: str) -> Tensor:
    """The tensor held by exactly ``data``; it may share memory with it and may be read-only.

    Raises InvalidRequest naming ``field`` when the length is not that of ``shape``.
    """
    count = math.prod(shape)
    if datatype.name == "BYTES":
        return _unpack_bytes(data, count, field).reshape(shape)
    if len(data) != count * datatype.wire_size:
        expected = count * datatype.wire_size
        raise InvalidRequest(
            f"{datatype.name} of shape {list(shape)} takes {expected} bytes, but {len(data)} were sent", field
        )
    if datatype.name == "BF16":
        bits = np.frombuffer(data, "<u2").astype("<u4") << 16
        widened: Tensor = bits.view("<f4")
        return widened.reshape(shape)
    if datatype.name == "BOOL":
        truth: Tensor = np.frombuffer(data, np.uint8) != 0
        return truth.reshape(shape)
    array = np.frombuffer(data, datatype.dtype).reshape(shape)
    # The JSON before it may have any length, and kernels may assume aligned elements.
    return array if array.flags.aligned else array.copy()


def encode_binary(array: Tensor, datatype: Datatype) -> bytes:
    """The tensor's binary data: the inverse of ``decode_binary`` (BF16 rounds)."""
    if datatype.name == "BYTES":
        return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel().tolist())
    if datatype.name == "BF16":
        return _to_bfloat16(array)
    return array.astype(datatype.dtype, order="C", copy=False).tobytes()


def decode_json(data: Any, datatype: Datatype, shape: tuple[int, ...], field: str) -> Tensor:
    """The tensor in a JSON array, flat in row-major order or nested exactly as ``shape``.

    Raises InvalidRequest naming ``field`` for another nesting, another number of elements, an element of the wrong type
    or one that does not fit the datatype.
    """
    if datatype.name == "BF16":
        raise InvalidRequest("BF16 has no JSON form; send it as binary data", field)
    flat = _flatten(data, shape, field)
    found = set(map(type, flat))
    if not found <= datatype.json_types:
        wrong = ", ".join(sorted(_json_name(kind) for kind in found - datatype.json_types))
        raise InvalidRequest(f"{datatype.name} cannot hold {wrong}", field)
    if datatype.name == "BYTES":
        return _object_array([element.encode() for element in flat]).reshape(shape)
    if datatype.dtype.kind in "iu" and flat:
        bounds = np.iinfo(datatype.dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:
            raise InvalidRequest(f"a value is out of range for {datatype.name}", field)
    with np.errstate(over="ignore"):
        array = np.array(flat, dtype=datatype.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(f"a value is out of range for {datatype.name}", field)
    return array.reshape(shape)


def encode_json(array: Tensor, datatype: Datatype, field: str) -> Tensor | list[str]:
    """The tensor flat, in row-major order, in a form that orjson writes.

    Raises InvalidRequest naming ``field`` for what JSON cannot hold: BF16, and BYTES that are not UTF-8.
    """
    if datatype.name == "BF16":
        raise InvalidRequest("BF16 has no JSON form; ask for binary data", field)
    if datatype.name == "BYTES":
        try:
            return [element.decode() for element in array.ravel().tolist()]
        except UnicodeDecodeError:
            raise InvalidRequest("this output is not UTF-8 text; ask for binary data", field) from None
    return np.ascontiguousarray(array, dtype=datatype.dtype.newbyteorder("=")).ravel()


def _unpack_bytes(data: memoryview | bytes, count: int, field: str) -> Tensor:
    if count * 4 > len(data):
        raise InvalidRequest(
            f"{count} BYTES elements take {count * 4} bytes and more, but {len(data)} were sent", field
        )
    view = memoryview(data)
    elements: list[bytes] = []
    offset = 0
    for index in range(count):
        start = offset + 4
        end = start + int.from_bytes(view[offset:start], "little") if start <= len(view) else len(view) + 1
        if end > len(view):
            raise InvalidRequest(f"BYTES element {index} runs past the end of its data", field)
        elements.append(bytes(view[start:end]))
        offset = end
    if offset != len(view):
        raise InvalidRequest(f"{len(view) - offset} bytes are left after {count} BYTES elements", field)
    return _object_array(elements)


def _object_array(elements: Sequence[bytes]) -> Tensor:
    # np.array() would make fixed-width strings of them, which lose trailing zero bytes.
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _to_bfloat16(array: Tensor) -> bytes:
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding would carry a NaN with a full mantissa into zero.
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2").tobytes()


def _flatten(data: Any, shape: tuple[int, ...], field: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidRequest("must be an array", field)
    level, depth = data, 1
    while level and isinstance(level[0], list):
        if depth == len(shape):
            raise InvalidRequest(f"is nested deeper than the shape {list(shape)}", field)
        regular = all(type(row) is list and len(row) == shape[depth] for row in level)
        if not regular or len(level) != math.prod(shape[:depth]):
            raise InvalidRequest(f"is nested in another way than the shape {list(shape)}", field)
        level, depth = list(chain.from_iterable(level)), depth + 1
    if level and 1 < depth < len(shape):
        raise InvalidRequest(f"is neither flat nor nested as the shape {list(shape)}", field)
    if len(level) != math.prod(shape):
        raise InvalidRequest(f"has {len(level)} elements, but the shape {list(shape)} takes {math.prod(shape)}", field)
    return level


def _json_name(kind: type) -> str:
    names: dict[type, str] = {bool: "a boolean", int: "an integer", float: "a floating-point number", str: "a string"}
    return (names | {list: "an array", dict: "an object"}).get(kind, "null")
