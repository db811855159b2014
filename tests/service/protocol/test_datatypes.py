import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from service.errors import InvalidRequest
from service.protocol.datatypes import DATATYPES, decode_binary, decode_json, encode_binary, encode_json

FIXED = sorted(set(DATATYPES) - {"BYTES", "BF16"})
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


def arrays(name: str, finite: bool = False) -> st.SearchStrategy[np.ndarray]:
    elements = {"allow_nan": False, "allow_infinity": False} if finite and DATATYPES[name].dtype.kind == "f" else None
    return hnp.arrays(DATATYPES[name].dtype, shapes, elements=elements)


@given(st.sampled_from(FIXED).flatmap(lambda name: st.tuples(st.just(name), arrays(name))), st.integers(0, 8))
def test_binary_round_trip(case, lead):
    name, array = case
    data = encode_binary(array, DATATYPES[name])
    assert len(data) == array.size * DATATYPES[name].wire_size
    # Behind JSON of any length the elements need not be aligned; the decoded ones always are.
    decoded = decode_binary(memoryview(b"x" * lead + data)[lead:], DATATYPES[name], array.shape, "f")
    assert decoded.dtype == array.dtype
    assert decoded.flags.aligned
    assert decoded.tobytes() == array.tobytes()


@given(hnp.arrays(object, shapes, elements=st.binary(max_size=9)))
def test_bytes_round_trip(array):
    data = encode_binary(array, DATATYPES["BYTES"])
    assert_array_equal(decode_binary(data, DATATYPES["BYTES"], array.shape, "f"), array)


def test_bytes_are_those_of_the_public_client():
    array = np.array([[b"a", b""], [b"trailing\0", "é".encode()]], dtype=object)
    theirs = serialize_byte_tensor(array).item()
    assert encode_binary(array, DATATYPES["BYTES"]) == theirs
    assert_array_equal(decode_binary(theirs, DATATYPES["BYTES"], (2, 2), "f"), array)
    assert_array_equal(deserialize_bytes_tensor(encode_binary(array, DATATYPES["BYTES"])), array.ravel())


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (np.inf, 0x7F80),
        (1 + 2**-8, 0x3F80),  # halfway: to even
        (1 + 3 * 2**-8, 0x3F82),  # halfway: to even
        (1 + 2**-8 + 2**-20, 0x3F81),
        (float(np.finfo(np.float32).max), 0x7F80),
    ],
)
def test_bf16_rounds_to_nearest_even(value, bits):
    assert encode_binary(np.array([value], np.float32), DATATYPES["BF16"]) == bits.to_bytes(2, "little")


def test_bf16_widens_exactly():
    every = np.arange(2**16, dtype="<u2")
    decoded = decode_binary(every.tobytes(), DATATYPES["BF16"], (2**16,), "f")
    assert_array_equal(decoded.view("<u4") >> 16, every)
    finite = ~np.isnan(decoded)
    again = np.frombuffer(encode_binary(decoded, DATATYPES["BF16"]), "<u2")
    assert_array_equal(again[finite], every[finite])
    assert np.isnan(decode_binary(again.tobytes(), DATATYPES["BF16"], (2**16,), "f")[~finite]).all()


@given(st.sampled_from(FIXED).flatmap(lambda name: st.tuples(st.just(name), arrays(name, finite=True))), st.booleans())
def test_json_flat_or_nested(case, nested):
    name, array = case
    data = array.tolist() if nested else array.ravel().tolist()
    decoded = decode_json(data, DATATYPES[name], array.shape, "f")
    assert decoded.dtype == array.dtype
    assert_array_equal(decoded, array)


def test_json_strings_are_utf8():
    decoded = decode_json([["é", "b\0"]], DATATYPES["BYTES"], (1, 2), "f")
    assert decoded.tolist() == [["é".encode(), b"b\0"]]
    assert encode_json(decoded, DATATYPES["BYTES"], "f") == ["é", "b\0"]


@pytest.mark.parametrize(
    ("name", "data", "shape", "says"),
    [
        ("UINT8", [256], (1,), "out of range"),
        ("UINT8", [-1], (1,), "out of range"),
        ("INT8", [128], (1,), "out of range"),
        ("INT64", [2**63], (1,), "out of range"),
        ("FP16", [70000], (1,), "out of range"),
        ("FP32", [1e39], (1,), "out of range"),
        ("UINT8", [1.0], (1,), "floating-point"),
        ("INT64", [1e30], (1,), "floating-point"),
        ("UINT8", [1, True], (2,), "a boolean"),
        ("FP32", [True], (1,), "a boolean"),
        ("FP32", ["1"], (1,), "a string"),
        ("FP32", [None], (1,), "null"),
        ("FP32", [{}], (1,), "an object"),
        ("BOOL", [1], (1,), "an integer"),
        ("BYTES", [1], (1,), "an integer"),
        ("BF16", [1.0], (1,), "binary"),
        ("UINT8", [1, 2, 3], (2, 2), "3 elements"),
        ("UINT8", [], (1,), "0 elements"),
        ("UINT8", [[1, 2], [3]], (2, 2), "nested"),
        ("UINT8", [[1, 2], 3], (2, 2), "nested"),
        ("UINT8", [1, [2]], (2,), "an array"),
        ("UINT8", [[1, 2], [3, 4], [5, 6]], (2, 3), "nested"),
        ("UINT8", [[[1], [2]]], (1, 2), "nested"),
        ("UINT8", [[1, 2]], (1, 2, 1), "nested"),
        ("UINT8", [[1], [2]], (2,), "nested"),
        ("UINT8", "AAAA", (4,), "array"),
        ("UINT8", 1, (1,), "array"),
        ("UINT8", None, (1,), "array"),
        ("UINT8", {"0": 1}, (1,), "array"),
    ],
)
def test_json_refused(name, data, shape, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        decode_json(data, DATATYPES[name], shape, "inputs[0].data")
    assert caught.value.field == "inputs[0].data"


@pytest.mark.parametrize(
    ("name", "data", "shape"),
    [
        ("UINT8", b"123", (4,)),
        ("UINT8", b"12345", (4,)),
        ("FP32", b"123", (1,)),
        ("BF16", b"123", (1,)),
        ("BOOL", b"", (1,)),
        ("FP32", b"", (2**20, 2**20)),
        ("BYTES", b"", (1,)),
        ("BYTES", b"\1\0\0", (1,)),
        ("BYTES", b"\2\0\0\0a", (1,)),
        ("BYTES", b"\xff\xff\xff\xffa", (1,)),
        ("BYTES", b"\1\0\0\0a", (2,)),
        ("BYTES", b"\1\0\0\0a\0\0\0", (2,)),
        ("BYTES", b"\1\0\0\0ab", (1,)),
        ("BYTES", b"\0\0\0\0", (2**40,)),
    ],
)
def test_binary_of_another_length_is_refused(name, data, shape):
    with pytest.raises(InvalidRequest) as caught:
        decode_binary(data, DATATYPES[name], shape, "inputs[0].parameters.binary_data_size")
    assert caught.value.field == "inputs[0].parameters.binary_data_size"


def test_bool_bytes_are_booleans():
    decoded = decode_binary(b"\0\1\2", DATATYPES["BOOL"], (3,), "f")
    assert decoded.view(np.uint8).tolist() == [0, 1, 1]


def test_what_json_cannot_hold_is_refused_by_name():
    with pytest.raises(InvalidRequest, match=r"outputs\[0\]"):
        encode_json(np.array([b"\xff"], object), DATATYPES["BYTES"], "outputs[0]")
    with pytest.raises(InvalidRequest, match=r"outputs\[0\]"):
        encode_json(np.ones(1, np.float32), DATATYPES["BF16"], "outputs[0]")
