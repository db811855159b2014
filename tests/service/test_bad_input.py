"""Bad input gets a 4xx that names what is wrong, and costs nothing else: after each, the server still serves."""

import gzip
import json
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.live import LiveServer, infer_body, serve

INFER = "/v2/models/fashion/infer"
IMAGE = np.zeros((1, 28, 28), np.uint8)
PIXELS = 28 * 28


@pytest.fixture(autouse=True)
def _still_serves(server: LiveServer) -> Iterator[None]:
    yield
    response = server.http.post(INFER, json=infer_body(IMAGE))
    assert response.status_code == 200, response.text
    samples = server.metrics()
    assert samples['sluice_inflight{model="fashion"}'] == 0
    assert samples['sluice_queue_depth{model="fashion"}'] == 0


def refused(response: httpx.Response, status: int, names: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert isinstance(body["error"], str)
    assert names in body["error"]


def image(**changes: object) -> dict[str, object]:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * PIXELS, **changes}
    return {"inputs": [{name: value for name, value in tensor.items() if value is not ...}]}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        pytest.param(image(shape=[1, 27, 28]), "shape", id="wrong size"),
        pytest.param(image(shape=[784]), "shape", id="wrong rank"),
        pytest.param(image(shape=[2, 28, 28]), "data", id="shape that the data does not fill"),
        pytest.param(image(shape=[-1, 28, 28]), "shape", id="negative size"),
        pytest.param(image(shape=[1, 28, 28.0]), "shape", id="fractional size"),
        pytest.param(image(shape=[0, 28, 28], data=[]), "image", id="no image"),
        pytest.param(image(shape=[65, 28, 28], data=[0] * 65 * PIXELS), "image", id="too many images"),
        pytest.param(image(shape=[2**40, 28, 28]), "shape", id="absurd size"),
        pytest.param(image(shape=[2**63, 28, 28]), "shape", id="size that overflows"),
        pytest.param(image(shape=[2**32, 2**32, 28]), "shape", id="product that overflows"),
        pytest.param(image(shape=[10**400, 28, 28]), "inputs[0].shape[0]", id="size that no number holds"),
        pytest.param(image(shape=[True, 28, 28]), "shape", id="size as a boolean"),
        pytest.param(image(shape=[1] * 1000), "shape", id="absurd rank"),
        pytest.param(image(shape=...), "shape", id="no shape"),
        pytest.param(image(datatype="FP32"), "datatype", id="wrong datatype"),
        pytest.param(image(datatype="UINT9"), "datatype", id="unknown datatype"),
        pytest.param(image(datatype=...), "datatype", id="no datatype"),
        pytest.param(image(name="picture"), "picture", id="wrong name"),
        pytest.param(image(name=7), "name", id="name of another type"),
        pytest.param(image(data=...), "data", id="no data"),
        pytest.param(image(data=[0] * 783), "data", id="too few elements"),
        pytest.param(image(data=[0] * 785), "data", id="too many elements"),
        pytest.param(image(data=[0] * 783 + [256]), "data", id="out of range"),
        pytest.param(image(data=[0] * 783 + [-1]), "data", id="below range"),
        pytest.param(image(data=[0] * 783 + [0.5]), "data", id="fraction"),
        pytest.param(image(data=[0] * 783 + ["1"]), "data", id="text for a number"),
        pytest.param(image(data=[0] * 783 + [None]), "data", id="null for a number"),
        pytest.param(image(data=[[0] * 28] * 27 + [[0] * 27]), "data", id="ragged data"),
        pytest.param(image(data=[2**64] * PIXELS), "data", id="integers that overflow"),
        pytest.param({"inputs": []}, "inputs", id="no inputs"),
        pytest.param({}, "inputs", id="nothing"),
        pytest.param({"inputs": image()["inputs"] * 2}, "image", id="an input twice"),
        pytest.param(image() | {"outputs": [{"name": "logits"}]}, "logits", id="unknown output"),
        pytest.param(image() | {"id": 7}, "id", id="id of another type"),
        pytest.param(image() | {"parameters": {"note": [1]}}, "note", id="parameter of an unknown type"),
        pytest.param(image() | {"parameters": {"note": {"a": 1}}}, "note", id="parameter that is an object"),
        pytest.param(image() | {"parameters": [1]}, "parameters", id="parameters that are no object"),
        pytest.param(image() | {"parameters": {"slo_ms": 0}}, "slo_ms", id="SLO of 0"),
        pytest.param(image() | {"parameters": {"slo_ms": -5}}, "slo_ms", id="negative SLO"),
        pytest.param(image() | {"parameters": {"slo_ms": "20"}}, "slo_ms", id="SLO as text"),
        pytest.param(image() | {"parameters": {"level": 1.1}}, "level", id="level above 1"),
        pytest.param(image() | {"parameters": {"quality_floor": True}}, "quality_floor", id="floor as a boolean"),
        pytest.param(image() | {"parameters": {"timeout": 1.5}}, "timeout", id="fractional timeout"),
        pytest.param(image() | {"parameters": {"priority": -1}}, "priority", id="negative priority"),
        pytest.param(
            image(data=..., parameters={"binary_data_size": PIXELS}), "binary_data_size", id="binary without a header"
        ),
    ],
)
def test_json(server: LiveServer, body, names):
    refused(server.http.post(INFER, json=body), 400, names)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": NaN}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1,28,28], "data": [NaN, Infinity]}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=["empty", "cut", "array", "null", "NaN", "NaN and Inf as data", "no UTF-8", "JSON bomb", "closed JSON bomb"],
)
def test_text_that_is_no_request(server: LiveServer, text):
    response = server.http.post(INFER, content=text)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


def binary(
    tensor: bytes, size: int | None = None, json_length: int | str | None = None
) -> tuple[bytes, dict[str, str]]:
    document = image(data=..., parameters={"binary_data_size": len(tensor) if size is None else size})
    text = json.dumps(document).encode()
    length = len(text) if json_length is None else json_length
    return text + tensor, {"Inference-Header-Content-Length": str(length)}


@pytest.mark.parametrize(
    ("request_parts", "names"),
    [
        pytest.param(binary(bytes(PIXELS - 1), size=PIXELS), "binary_data_size", id="truncated"),
        pytest.param(binary(bytes(PIXELS + 1), size=PIXELS), "body", id="oversized"),
        pytest.param(binary(bytes(PIXELS - 1)), "binary_data_size", id="too short for the shape"),
        pytest.param(binary(bytes(PIXELS + 1)), "binary_data_size", id="too long for the shape"),
        pytest.param(binary(bytes(PIXELS), size=-1), "binary_data_size", id="negative size"),
        pytest.param(binary(bytes(PIXELS), size=2**62), "binary_data_size", id="absurd size"),
        pytest.param(binary(bytes(PIXELS), json_length=10**6), "Inference-Header", id="header past the body"),
        pytest.param(binary(bytes(PIXELS), json_length=-1), "Inference-Header", id="negative header"),
        pytest.param(binary(bytes(PIXELS), json_length="ten"), "Inference-Header", id="header that is no number"),
        pytest.param((bytes(PIXELS - 1), {"Inference-Header-Content-Length": "0"}), "image", id="raw, truncated"),
    ],
)
def test_binary(server: LiveServer, request_parts, names):
    content, headers = request_parts
    refused(server.http.post(INFER, content=content, headers=headers), 400, names)


def test_compressed_bodies(server: LiveServer):
    packed = gzip.compress(json.dumps(image()).encode())
    encoded = {"Content-Encoding": "gzip"}
    assert server.http.post(INFER, content=packed, headers=encoded).status_code == 200
    refused(server.http.post(INFER, content=packed[:-9], headers=encoded), 400, "gzip")
    refused(server.http.post(INFER, content=b"not gzip", headers=encoded), 400, "gzip")
    refused(server.http.post(INFER, content=packed, headers={"Content-Encoding": "deflate"}), 400, "deflate")
    refused(server.http.post(INFER, content=packed, headers={"Content-Encoding": "br"}), 400, "br")


@pytest.mark.parametrize("header", ["Inference-Header-Content-Length", "Content-Encoding"])
def test_a_header_given_twice(server: LiveServer, header):
    content, headers = binary(bytes(PIXELS))
    twice = [*headers.items(), (header, "gzip"), (header, "identity")]
    refused(server.http.post(INFER, content=content, headers=twice), 400, header)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_stops_at_the_limit(server: LiveServer, encoding):
    zeros = bytes(1 << 20)
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    assert len(bomb) < 100_000
    refused(server.http.post(INFER, content=bomb, headers={"Content-Encoding": encoding}), 413, "body")


def test_the_body_limit(model, tmp_path):
    with serve([model], tmp_path, max_body_bytes=4096) as small:
        refused(small.http.post(INFER, content=bytes(4097)), 413, "4096")
        # Chunked: nothing declares the length beforehand.
        refused(small.http.post(INFER, content=iter([bytes(1024)] * 5)), 413, "4096")
        assert small.http.post(INFER, json=infer_body(IMAGE)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nothing/infer", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/nothing/slo", 404),
        ("GET", "/v2/models/fashion/versions/9", 404),
        ("GET", "/v2/models/fashion/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/fashion/infer", 405),
        ("DELETE", "/v2/models/fashion", 405),
        ("POST", "/v2/repository/models/nothing/load", 404),
    ],
)
def test_unknown_places(server: LiveServer, method, path, status):
    refused(server.http.request(method, path), status, "")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"latency_ms": 0}, "latency_ms"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": "20"}, "latency_ms"),
        ({"latency_ms": True}, "latency_ms"),
        ({"latency_ms": None}, "latency_ms"),
        ({"percentile": 101}, "percentile"),
        ({"percentile": 100}, "percentile"),
        ({"percentile": 0}, "percentile"),
        ({"quality_floor": -0.1}, "quality_floor"),
        ({"quality_floor": 1.1}, "quality_floor"),
        ({"shed": 1}, "shed"),
        ({"latency": 20}, "latency"),
        ({"latency_ms": 30, "percentile": 101}, "percentile"),
    ],
)
def test_an_slo_that_cannot_be_leaves_the_old_one(server: LiveServer, change, names):
    before = server.http.get("/v2/models/fashion/slo").json()
    refused(server.http.patch("/v2/models/fashion/slo", json=change), 400, names)
    assert server.http.get("/v2/models/fashion/slo").json() == before


@pytest.mark.parametrize(
    "text", [b'{"latency_ms": NaN}', b'{"latency_ms": Infinity}', b'{"latency_ms": 1e999}', b"{", b"[1]"]
)
def test_an_slo_that_is_no_json(server: LiveServer, text):
    before = server.http.get("/v2/models/fashion/slo").json()
    response = server.http.patch("/v2/models/fashion/slo", content=text)
    assert response.status_code == 400
    assert response.json()["error"]
    assert server.http.get("/v2/models/fashion/slo").json() == before


def test_put_needs_the_whole_slo(server: LiveServer):
    refused(server.http.put("/v2/models/fashion/slo", json={"latency_ms": 20}), 400, "percentile")
