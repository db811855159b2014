import json
import math

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.testing import assert_array_equal

from models.model import TensorSpec
from service.errors import InvalidRequest
from service.protocol.v2_request import JSON_LENGTH_HEADER, RequestedOutput
from service.protocol.v2_response import classify, render_infer

SPECS = (
    TensorSpec("scores", "FP32", (-1, 3), ("shirt", "coat")),
    TensorSpec("label", "INT64", (-1,)),
    TensorSpec("text", "BYTES", (-1,)),
    TensorSpec("half", "FP16", (2,)),
)
TENSORS = {
    "scores": np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32),
    "label": np.array([1, 0]),
    "text": np.array([b"a", b""], object),
    "half": np.array([0.5, -2], np.float16),
}


def render(*outputs: RequestedOutput, parameters=None, request_id="7"):
    return render_infer("m", "1", request_id, SPECS, TENSORS, outputs, parameters or {})


def read(body: bytes, headers: dict[str, str]) -> triton.InferResult:
    length = headers.get(JSON_LENGTH_HEADER)
    return triton.InferenceServerClient.parse_response_body(body, header_length=int(length) if length else None)


@pytest.mark.parametrize("binary", [(True,) * 4, (False,) * 4, (True, False, True, False), (False, True, False, True)])
def test_the_public_client_reads_it(binary):
    names = ["half", "text", "label", "scores"]
    result = read(*render(*map(RequestedOutput, names, binary), parameters={"level": 0.5, "slo_met": True}))
    for name in names:
        expected = TENSORS[name]
        if name == "text" and not dict(zip(names, binary, strict=True))[name]:
            expected = np.array([element.decode() for element in expected], object)
        assert_array_equal(result.as_numpy(name), expected)
        assert result.get_output(name)["shape"] == list(TENSORS[name].shape)
    response = result.get_response()
    assert [output["name"] for output in response["outputs"]] == names
    assert (response["model_name"], response["model_version"], response["id"]) == ("m", "1", "7")
    assert response["parameters"] == {"level": 0.5, "slo_met": True}


def test_json_alone():
    body, headers = render(RequestedOutput("label", False), request_id="")
    assert headers == {"Content-Type": "application/json"}
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "1",
        "parameters": {},
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]}],
    }


def test_binary_lies_behind_json_of_the_announced_length():
    body, headers = render(RequestedOutput("label", True), RequestedOutput("half", True))
    length = int(headers[JSON_LENGTH_HEADER])
    assert headers["Content-Type"] == "application/octet-stream"
    assert body[length:] == TENSORS["label"].tobytes() + TENSORS["half"].tobytes()
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(body[:length])["outputs"]]
    assert sizes == [16, 4]


def test_numbers_that_json_lacks_are_null():
    tensors = {"scores": np.array([[math.nan, math.inf, 1.0]], np.float32)}
    body, _ = render_infer("m", "1", "", SPECS, tensors, [RequestedOutput("scores", False)], {"level": math.nan})
    response = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert response["outputs"][0]["data"] == [None, None, 1.0]
    assert response["parameters"]["level"] is None


@pytest.mark.parametrize("binary", [True, False])
def test_classification(binary):
    result = read(*render(RequestedOutput("scores", binary, 2)))
    assert result.get_output("scores")["datatype"] == "BYTES"
    labels = [
        [element if isinstance(element, str) else element.decode() for element in row]
        for row in result.as_numpy("scores")
    ]
    assert labels == [["0.700000:1:coat", "0.200000:2"], ["0.500000:0:shirt", "0.250000:1:coat"]]


def test_classification_of_more_classes_than_there_are():
    assert classify(TENSORS["scores"], 99, (), batched=True).shape == (2, 3)
    assert classify(TENSORS["label"], 5, (), batched=True).tolist() == [[b"1.000000:0"], [b"0.000000:0"]]


def test_classification_without_a_batch():
    assert classify(np.array([1, 3], np.float32), 1, ("a", "b"), batched=False).tolist() == [b"3.000000:1:b"]


def test_arrays_of_any_layout():
    tensors = {"scores": np.asfortranarray(TENSORS["scores"])[::-1]}
    for binary in (True, False):
        result = read(*render_infer("m", "1", "", SPECS, tensors, [RequestedOutput("scores", binary)], {}))
        assert_array_equal(result.as_numpy("scores"), TENSORS["scores"][::-1])


def test_bytes_that_are_no_text_need_binary_data():
    with pytest.raises(InvalidRequest, match=r"outputs\[0\]\.parameters\.binary_data"):
        render_infer("m", "1", "", SPECS, {"text": np.array([b"\xff"], object)}, [RequestedOutput("text", False)], {})
