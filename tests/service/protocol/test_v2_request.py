import json

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tritonclient.http._utils import _get_inference_request

from models.model import TensorSpec
from service.errors import InvalidRequest, ServiceError, TooLarge, Unsupported
from service.protocol.limits import Limits
from service.protocol.v2_request import InferRequest, RequestedOutput, parse_infer
from tests.service.protocol.specs import IMAGE, MIXED, SCORES, binary_request, image_request, image_tensor

LIMITS = Limits(json_bytes=10_000, values=2_000, tensors=4)
SIZES = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3)


def parse(document: object, inputs=IMAGE, outputs=SCORES) -> InferRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_infer(body, None, inputs, outputs, LIMITS)


def refused(field: str, document: object, **specs: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(document, **specs)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[1, 2, 3], [4, 5, 6]]]])
def test_json(data):
    request = parse(image_request(inputs=[image_tensor(data=data)]))
    assert request.id == "7"
    assert request.inputs["image"].dtype == np.uint8
    assert_array_equal(request.inputs["image"], SIZES)
    assert request.outputs == (RequestedOutput("scores", False), RequestedOutput("label", False))


def test_everything_optional_left_out():
    request = parse(image_request(id=...))
    assert request.id == ""
    assert request.options.slo_ms is request.options.level is request.options.timeout_us is None
    assert request.options.priority == 0


OPTIONAL = (TensorSpec("prompt", "BYTES", (-1,)), TensorSpec("max_tokens", "INT32", (1,), optional=True))
PROMPT = {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["hi"]}


def test_an_optional_input_may_be_left_out_and_no_other():
    most = {"name": "max_tokens", "shape": [1], "datatype": "INT32", "data": [3]}
    assert set(parse({"inputs": [PROMPT]}, OPTIONAL).inputs) == {"prompt"}
    assert parse({"inputs": [PROMPT, most]}, OPTIONAL).inputs["max_tokens"].tolist() == [3]
    refused("inputs", {"inputs": [most]}, inputs=OPTIONAL)
    assert parse_infer(b"hi", "0", OPTIONAL, SCORES, LIMITS).inputs["prompt"].tolist() == [b"hi"]


def test_binary_inputs_lie_in_json_order_whatever_the_models_order():
    tensors = [
        {"name": "scale", "shape": [2], "datatype": "BF16", "parameters": {"binary_data_size": 4}},
        {"name": "tokens", "shape": [2, 1], "datatype": "INT32", "data": [[5], [6]]},
        {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
    ]
    body, length = binary_request({"inputs": tensors}, b"\x80\x3f\x00\x40", b"\2\0\0\0hi")
    request = parse_infer(body, length, MIXED, SCORES, LIMITS)
    assert request.inputs["scale"].tolist() == [1.0, 2.0]
    assert request.inputs["tokens"].tolist() == [[5], [6]]
    assert request.inputs["text"].tolist() == [b"hi"]


def test_outputs_keep_their_order_and_their_own_binary_data():
    outputs = [
        {"name": "label"},
        {"name": "scores", "parameters": {"binary_data": False, "classification": 2}},
    ]
    request = parse(image_request(outputs=outputs, parameters={"binary_data_output": True}))
    assert request.outputs == (RequestedOutput("label", True), RequestedOutput("scores", False, 2))


@pytest.mark.parametrize("outputs", [..., []])
@pytest.mark.parametrize("binary", [True, False])
def test_no_outputs_means_all_of_them(outputs, binary):
    request = parse(image_request(outputs=outputs, parameters={"binary_data_output": binary}))
    assert request.outputs == (RequestedOutput("scores", binary), RequestedOutput("label", binary))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["BOOL", "INT8", "INT64", "UINT16", "UINT64", "FP16", "FP32", "FP64", "BYTES"])
def test_requests_of_the_public_client(name, binary):
    array = (
        np.array([[b"ab", b"c\0"]], object)
        if name == "BYTES"
        else np.array([[0, 1]]).astype({"BOOL": bool}.get(name) or name.lower().replace("fp", "float"))
    )
    sent = triton.InferInput("x", [1, 2], name)
    sent.set_data_from_numpy(array, binary_data=binary)
    body, length = _get_inference_request(
        [sent], "r1", [triton.InferRequestedOutput("scores", class_count=3)], 9, True, False, 2, 5000, {"level": 0.5}
    )
    specs = (TensorSpec("x", name, (-1, 2)),)
    request = parse_infer(body, None if length is None else str(length), specs, SCORES, LIMITS)
    assert_array_equal(request.inputs["x"], array)
    assert request.outputs == (RequestedOutput("scores", True, 3),)
    assert (request.options.level, request.options.timeout_us, request.options.priority) == (0.5, 5000, 2)


@pytest.mark.parametrize(
    ("spec", "body", "shape"),
    [
        (TensorSpec("x", "UINT8", (-1, 2, 3)), bytes(12), (2, 2, 3)),
        (TensorSpec("x", "FP32", (4,)), bytes(16), (4,)),
        (TensorSpec("x", "FP32", (-1, -1)), bytes(16), (1, 4)),
        (TensorSpec("x", "BYTES", (-1, 1)), b"\xff text", (1, 1)),
        (TensorSpec("x", "BYTES", (-1, -1)), b"", (1, 1)),
    ],
)
def test_a_raw_request_is_the_one_inputs_data(spec, body, shape):
    request = parse_infer(body, "0", (spec,), SCORES, LIMITS)
    assert request.inputs["x"].shape == shape
    if spec.datatype == "BYTES":
        assert request.inputs["x"].item() == body
    assert all(output.binary for output in request.outputs)


@pytest.mark.parametrize(
    ("specs", "body", "field"),
    [
        (MIXED, b"", "Inference-Header-Content-Length"),
        (IMAGE, bytes(7), "body"),
        ((TensorSpec("x", "FP32", (-1,)),), bytes(7), "body"),
        ((TensorSpec("x", "FP32", (2,)),), bytes(16), "body"),
        ((TensorSpec("x", "BYTES", (-1, 2)),), b"abc", "body"),
    ],
)
def test_a_raw_request_that_does_not_fit(specs, body, field):
    with pytest.raises(InvalidRequest) as caught:
        parse_infer(body, "0", specs, SCORES, LIMITS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"inputs"',
        b"[" * 1900,
        b'{"a":' * 990,
        b'{"id": "\\ud800"}',
    ],
)
def test_what_is_not_a_json_object(body):
    refused("body", body)


def test_a_number_that_is_not_finite_is_named():
    refused("inputs", b'{"inputs": NaN}')
    refused("parameters.slo_ms", b'{"parameters": {"slo_ms": Infinity}}')


def test_json_over_its_own_limit():
    with pytest.raises(TooLarge, match="10000 bytes"):
        parse(b" " * 10_001)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b",".join([b"[]"] * 1100) + b"]}",
        b'{"inputs": [' + b",".join([b"0"] * 2100) + b"]}",
        b'{"inputs": [' + b",".join([b"{}"] * 1100) + b"]}",
        b"{" + b",".join(b'"%d":0' % i for i in range(1100)) + b"}",
    ],
)
def test_more_values_than_are_worth_parsing(body):
    with pytest.raises(TooLarge, match="2000 values"):
        parse(body)


def test_more_bytes_elements_than_are_worth_unpacking():
    text = {"name": "x", "shape": [2001], "datatype": "BYTES", "parameters": {"binary_data_size": 8004}}
    body, length = binary_request({"inputs": [text]}, bytes(8004))
    with pytest.raises(TooLarge, match=r"inputs\[0\]\.shape: .*2000"):
        parse_infer(body, length, (TensorSpec("x", "BYTES", (-1,)),), SCORES, LIMITS)


def test_json_of_as_many_values_as_allowed():
    request = parse(image_request(inputs=[image_tensor(shape=[320, 2, 3], data=[0] * 1920)]))
    assert request.inputs["image"].shape == (320, 2, 3)


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", " 1", "+1", "1_0", "١", "0x10", "1" * 5000, "999999"])
def test_a_json_length_that_cannot_be(length):
    with pytest.raises(InvalidRequest) as caught:
        parse_infer(json.dumps(image_request()).encode(), length, IMAGE, SCORES, LIMITS)
    assert caught.value.field == "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id": 7}),
        ("inputs", {"inputs": ...}),
        ("inputs", {"inputs": []}),
        ("inputs", {"inputs": {}}),
        ("inputs", {"inputs": [image_tensor()] * 5}),
        ("inputs[0]", {"inputs": [7]}),
        ("inputs[1]", {"inputs": [image_tensor(), None]}),
        ("inputs[1].name", {"inputs": [image_tensor()] * 2}),
        ("outputs", {"outputs": {}}),
        ("outputs", {"outputs": None}),
        ("outputs", {"outputs": "scores"}),
        ("outputs", {"outputs": [{"name": "scores"}] * 5}),
        ("outputs[0]", {"outputs": ["scores"]}),
        ("outputs[0].name", {"outputs": [{}]}),
        ("outputs[0].name", {"outputs": [{"name": "image"}]}),
        ("outputs[1].name", {"outputs": [{"name": "label"}, {"name": "label"}]}),
        ("outputs[0].parameters", {"outputs": [{"name": "label", "parameters": []}]}),
        ("outputs[0].parameters.binary_data", {"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}),
        (
            "outputs[0].parameters.classification",
            {"outputs": [{"name": "label", "parameters": {"classification": -1}}]},
        ),
        (
            "outputs[0].parameters.classification",
            {"outputs": [{"name": "label", "parameters": {"classification": True}}]},
        ),
        (
            "outputs[0].parameters.classification",
            {"outputs": [{"name": "label", "parameters": {"classification": 2**40}}]},
        ),
        ("parameters", {"parameters": []}),
        ("parameters.binary_data_output", {"parameters": {"binary_data_output": "true"}}),
    ],
)
def test_refused_by_name(field, changes):
    refused(field, image_request(**changes))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": ...}),
        ("name", {"name": 7}),
        ("name", {"name": "picture"}),
        ("datatype", {"datatype": ...}),
        ("datatype", {"datatype": "FP32"}),
        ("datatype", {"datatype": "uint8"}),
        ("datatype", {"datatype": ["UINT8"]}),
        ("shape", {"shape": ...}),
        ("shape", {"shape": "1,2,3"}),
        ("shape", {"shape": []}),
        ("shape", {"shape": [6]}),
        ("shape", {"shape": [1, 3, 2]}),
        ("shape", {"shape": [1, 1, 2, 3]}),
        ("shape", {"shape": [1] * 100}),
        ("shape", {"shape": [-1, 2, 3]}),
        ("shape", {"shape": ["1", 2, 3]}),
        ("shape", {"shape": [True, 2, 3]}),
        ("shape", {"shape": [1.0, 2, 3]}),
        ("shape", {"shape": [None, 2, 3]}),
        ("shape", {"shape": [2**62, 2, 3]}),
        ("shape", {"shape": [2**64 - 1, 2**64 - 1, 2**64 - 1]}),
        ("shape", {"shape": [0, 2**63, 2**63]}),
        ("data", {"data": ...}),
        ("data", {"data": None}),
        ("data", {"data": "AQID"}),
        ("data", {"data": [1, 2, 3, 4, 5]}),
        ("data", {"data": [1, 2, 3, 4, 5, 256]}),
        ("data", {"shape": [2**40 // 6, 2, 3]}),
        ("parameters", {"parameters": 7}),
        ("parameters.x", {"parameters": {"x": None}}),
        ("parameters.binary_data_size", {"data": ..., "parameters": {"binary_data_size": 6}}),
    ],
)
def test_an_input_refused_by_name(field, changes):
    refused(f"inputs[0].{field}", image_request(inputs=[image_tensor(**changes)]))


@pytest.mark.parametrize("size", [5, 7, -1, True, 6.0, "6", 2**64 - 1])
def test_a_binary_size_that_does_not_fit(size):
    tensor = image_tensor(data=..., parameters={"binary_data_size": size})
    body, length = binary_request({"inputs": [tensor]}, bytes(6))
    with pytest.raises(InvalidRequest) as caught:
        parse_infer(body, length, IMAGE, SCORES, LIMITS)
    assert caught.value.field == "inputs[0].parameters.binary_data_size"


@pytest.mark.parametrize(("field", "data"), [("inputs[0].parameters.binary_data_size", bytes(5)), ("body", bytes(7))])
def test_binary_data_cut_short_or_left_over(field, data):
    tensor = image_tensor(data=..., parameters={"binary_data_size": 6})
    body, length = binary_request({"inputs": [tensor]}, data)
    with pytest.raises(InvalidRequest) as caught:
        parse_infer(body, length, IMAGE, SCORES, LIMITS)
    assert caught.value.field == field


def test_data_twice():
    body, length = binary_request({"inputs": [image_tensor(parameters={"binary_data_size": 6})]}, bytes(6))
    with pytest.raises(InvalidRequest, match=r"inputs\[0\]\.data"):
        parse_infer(body, length, IMAGE, SCORES, LIMITS)


def test_a_missing_input_is_named():
    tokens = {"name": "tokens", "shape": [1, 1], "datatype": "INT32", "data": [1]}
    with pytest.raises(InvalidRequest, match="inputs: lacks the input 'text'"):
        parse({"inputs": [tokens]}, inputs=MIXED)


def test_shared_memory_is_unsupported():
    shared = {"shared_memory_region": "r", "shared_memory_byte_size": 6}
    with pytest.raises(Unsupported, match=r"inputs\[0\]"):
        parse(image_request(inputs=[image_tensor(data=..., parameters=shared)]))
    with pytest.raises(Unsupported, match=r"outputs\[0\]"):
        parse(image_request(outputs=[{"name": "label", "parameters": shared}]))


def test_an_output_without_scores_or_json_form():
    outputs = (TensorSpec("text", "BYTES", (1,)), TensorSpec("wide", "BF16", (2,)))
    asked = [{"name": "text", "parameters": {"classification": 1}}]
    refused("outputs[0].parameters.classification", image_request(outputs=asked), outputs=outputs)
    refused("outputs[0].parameters.binary_data", image_request(outputs=[{"name": "wide"}]), outputs=outputs)
    assert parse(image_request(), outputs=outputs).outputs[1] == RequestedOutput("wide", binary=True)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
paths = st.sampled_from(
    [
        ("id",),
        ("inputs",),
        ("inputs", 0),
        *(("inputs", 0, key) for key in ("name", "shape", "datatype", "data", "parameters")),
        ("inputs", 0, "shape", 0),
        ("inputs", 0, "data", 3),
        ("inputs", 0, "parameters", "binary_data_size"),
        ("outputs",),
        ("outputs", 0),
        *(("outputs", 0, "parameters", key) for key in ("binary_data", "classification")),
        ("parameters",),
        *(("parameters", key) for key in ("slo_ms", "quality_floor", "level", "timeout", "priority", "x")),
    ]
)


@given(paths, json_values)
def test_any_value_anywhere_is_taken_or_refused(path, value):
    document = image_request(outputs=[{"name": "scores", "parameters": {}}], parameters={})
    document["inputs"][0]["parameters"] = {}
    *way, last = path
    at = document
    for key in way:
        at = at[key]
    at[last] = value
    try:
        request = parse(document)
    except ServiceError as error:
        assert 400 <= error.status < 500
        assert path[0] in error.message
    else:
        assert request.inputs["image"].shape[1:] == (2, 3)


@given(st.binary(max_size=60), st.none() | st.integers(0, 70).map(str))
def test_any_bytes_are_refused(body, length):
    try:
        request = parse_infer(body, length, IMAGE, SCORES, LIMITS)
    except ServiceError as error:
        assert 400 <= error.status < 500
    else:
        assert length == "0"
        assert request.inputs["image"].nbytes == len(body)


@given(st.data())
def test_mutated_binary_requests_are_taken_or_refused(data):
    tensor = image_tensor(data=..., parameters={"binary_data_size": 6})
    body, length = binary_request({"inputs": [tensor], "outputs": [{"name": "scores"}]}, bytes(6))
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    try:
        parse_infer(bytes(mutated[:cut]), length, IMAGE, SCORES, LIMITS)
    except ServiceError as error:
        assert 400 <= error.status < 500
