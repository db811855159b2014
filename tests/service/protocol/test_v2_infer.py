import asyncio
import gzip
import json
import zlib

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from service.errors import Expired, Internal, InvalidRequest, Refused, Unavailable
from tests.service.protocol.conftest import LIMITS, make_client
from tests.service.protocol.specs import binary_request, image_request, image_tensor

INFER = "/v2/models/toy/infer"


def errors_of(response):
    """The message of an error response, which has to be of the protocol's form."""
    assert response.headers["content-type"] == "application/json"
    message = response.json()["error"]
    assert isinstance(message, str) and message
    return message


@pytest.mark.parametrize("path", [INFER, "/v2/models/toy/versions/1/infer"])
async def test_json(client, engine, path):
    response = await client.post(path, json=image_request(parameters={"level": 0.5, "slo_ms": 30}))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model_name": "toy",
        "model_version": "1",
        "id": "7",
        "parameters": {
            "level": 0.5,
            "skip_rate": 0.4,
            "macs_skipped": 0.5,
            "quality": 0.99,
            "queue_ms": 1.0,
            "compute_ms": 2.0,
            "slo_met": True,
            "slo_attainable": True,
        },
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [1, 4], "data": [0.0, 21.0, 42.0, 63.0]},
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [3]},
        ],
    }
    (request,) = engine.submitted
    assert (request.model, request.protocol, request.id) == ("toy", "v2", "7")
    assert (request.options.level, request.options.slo_ms) == (0.5, 30)
    assert engine.rejected == []


@pytest.mark.parametrize("request_encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_encoding", [None, "gzip", "deflate"])
async def test_binary_as_the_public_client_builds_and_reads_it(client, request_encoding, response_encoding):
    image = triton.InferInput("image", [2, 2, 3], "UINT8")
    image.set_data_from_numpy(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    body, length = triton.InferenceServerClient.generate_request_body([image], request_id="r")
    headers = {"Inference-Header-Content-Length": str(length)}
    if request_encoding:
        body = {"gzip": gzip.compress, "deflate": zlib.compress}[request_encoding](body)
        headers["Content-Encoding"] = request_encoding
    if response_encoding:
        headers["Accept-Encoding"] = response_encoding
    async with client.stream("POST", INFER, content=body, headers=headers) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers.get("content-encoding") == response_encoding
    result = triton.InferenceServerClient.parse_response_body(
        raw,
        header_length=int(response.headers["inference-header-content-length"]),
        content_encoding=response_encoding,
    )
    assert_array_equal(result.as_numpy("scores"), [[0, 15, 30, 45], [0, 51, 102, 153]])
    assert_array_equal(result.as_numpy("label"), [3, 3])


async def test_a_raw_request(client):
    headers = {"Inference-Header-Content-Length": "0"}
    response = await client.post(INFER, content=bytes([1] * 6), headers=headers)
    assert response.status_code == 200
    length = int(response.headers["inference-header-content-length"])
    assert np.frombuffer(response.content[length:], "<f4", 4).tolist() == [0, 6, 12, 18]


async def test_brotli_is_never_sent(client):
    response = await client.post(INFER, json=image_request(), headers={"Accept-Encoding": "br, zstd"})
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [image_tensor(shape=[1, 3, 3])]}, "inputs[0].shape"),
        ({"inputs": [image_tensor(datatype="FP32")]}, "inputs[0].datatype"),
        ({"inputs": [image_tensor(name="picture")]}, "inputs[0].name"),
        ({"inputs": [image_tensor(data=[1])]}, "inputs[0].data"),
        ({"outputs": [{"name": "other"}]}, "outputs[0].name"),
        ({"parameters": {"level": 1.5}}, "parameters.level"),
        ({"parameters": {"slo_ms": 0}}, "parameters.slo_ms"),
        ({"parameters": {"quality_floor": "high"}}, "parameters.quality_floor"),
        ({"parameters": {"timeout": -1}}, "parameters.timeout"),
        ({"parameters": {"priority": 1.5}}, "parameters.priority"),
        ({"parameters": {"x": [1]}}, "parameters.x"),
    ],
)
async def test_a_bad_request_names_the_field_and_is_told_to_the_engine(client, engine, content, field):
    response = await client.post(INFER, json=image_request(**content))
    assert response.status_code == 400
    assert errors_of(response).startswith(f"{field}: ")
    assert engine.submitted == []
    ((model, protocol, error),) = engine.rejected
    assert (model, protocol, error.outcome) == ("toy", "v2", "invalid")


@pytest.mark.parametrize(
    ("path", "says"), [("/v2/models/nope/infer", "nope"), ("/v2/models/toy/versions/2/infer", "version '1'")]
)
async def test_an_unknown_model_or_version(client, engine, path, says):
    response = await client.post(path, json=image_request())
    assert response.status_code == 404
    assert says in errors_of(response)
    assert [model for model, _, _ in engine.rejected] == ["" if "nope" in path else "toy"]


async def test_bodies_over_the_limit(client, engine):
    over = LIMITS.body_bytes + 1

    async def chunks():
        for _ in range(over // 1000 + 1):
            yield bytes(1000)

    bomb = gzip.compress(bytes(over))
    for sent in (
        {"content": bytes(over)},
        {"content": chunks()},
        {"content": bomb, "headers": {"Content-Encoding": "gzip"}},
        {"content": b" " * (LIMITS.json_bytes + 1)},
    ):
        response = await client.post(INFER, **sent)
        assert response.status_code == 413
        assert errors_of(response).startswith("body: ")
    assert len(engine.rejected) == 4


async def test_a_refusal_says_when_to_come_back(client, engine):
    engine.error = Refused("the queue is full", retry_after_seconds=1.234)
    response = await client.post(INFER, json=image_request())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert response.json() == {"error": "the queue is full", "retry_after_ms": 1234}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 0.0004])
async def test_a_refusal_never_says_now_or_never(client, engine, seconds):
    engine.error = Refused("no", retry_after_seconds=seconds)
    response = await client.post(INFER, json=image_request())
    assert response.headers["retry-after"] == "1"
    assert 0 <= response.json()["retry_after_ms"] <= 1000


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Expired("its deadline passed"), 503),
        (Unavailable("stopping"), 503),
        (Internal("the model failed"), 500),
        (RuntimeError("secret detail"), 500),
    ],
)
async def test_errors_of_the_engine(client, engine, error, status):
    engine.error = error
    response = await client.post(INFER, json=image_request())
    assert response.status_code == status
    assert "secret" not in errors_of(response)
    # The engine knows of it already.
    assert engine.rejected == []


async def test_a_fault_while_a_request_is_read_is_counted(client, engine):
    engine.toy.inputs = None
    response = await client.post(INFER, json=image_request())
    assert response.status_code == 500
    ((model, protocol, error),) = engine.rejected
    assert (model, protocol, error.outcome) == ("toy", "v2", "error")


async def test_numbers_that_json_lacks_are_null(client, engine):
    engine.quality = float("nan")
    response = await client.post(INFER, json=image_request())
    assert response.status_code == 200
    assert response.json()["parameters"]["quality"] is None


async def test_a_client_that_leaves_withdraws_its_request(engine, app_of):
    engine.gate = asyncio.Event()
    app = app_of(None)
    body = json.dumps(image_request()).encode()
    leave = asyncio.Event()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        message = next(messages, None)
        if message is None:
            await leave.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message):
        sent.append(message)

    sent = []
    scope = {"type": "http", "method": "POST", "path": INFER, "query_string": b"", "headers": [], "http_version": "1.1"}
    call = asyncio.create_task(app(scope | {"scheme": "http", "server": ("s", 1), "client": ("c", 1)}, receive, send))
    while not engine.submitted:
        await asyncio.sleep(0)
    assert not call.done()
    leave.set()
    await call
    assert engine.cancelled == 1
    assert sent[0]["status"] == 499


async def test_times_of_a_generation_are_parameters(client, engine):
    body = image_request() | {"parameters": {"slo_first_token_ms": 50, "slo_token_ms": 5}}
    assert (await client.post(INFER, json=body)).status_code == 200
    options = engine.submitted[0].options
    assert (options.first_token_ms, options.token_ms) == (50, 5)
    engine.error = InvalidRequest("is for language models", "slo_token_ms")
    answer = await client.post(INFER, json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "parameters.slo_token_ms: is for language models")


async def test_a_cancelled_call_withdraws_its_request(client, engine):
    engine.gate = asyncio.Event()
    call = asyncio.create_task(client.post(INFER, json=image_request()))
    while not engine.submitted:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.cancelled == 1


header_values = st.sampled_from(["0", "5", "100", "200", "-1", "x", "1e3", ""])


@settings(deadline=None)
@given(
    st.data(),
    st.fixed_dictionaries(
        {},
        optional={
            "Inference-Header-Content-Length": header_values,
            "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, deflate", ""]),
            "Content-Type": st.sampled_from(["application/json", "text/plain", "multipart/form-data", "\xff"]),
            "Accept-Encoding": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
        },
    ),
)
def test_mutated_requests_never_fail_the_server(app_of, data, headers):
    tensor = image_tensor(data=..., parameters={"binary_data_size": 6})
    document = image_request(inputs=[tensor], outputs=[{"name": "scores"}], parameters={"slo_ms": 20})
    body, length = binary_request(document, bytes(6))
    mutated = bytearray(data.draw(st.sampled_from([body, json.dumps(image_request()).encode()])))
    for _ in range(data.draw(st.integers(0, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
    if data.draw(st.booleans()):
        content = gzip.compress(content)
    headers = {"Inference-Header-Content-Length": length} | headers
    encoded = [(name, value.encode("latin-1")) for name, value in headers.items()]

    async def post():
        async with make_client(app_of(None)) as client:
            return await client.post(INFER, content=content, headers=encoded)

    response = asyncio.run(post())
    assert response.status_code == 200 or 400 <= response.status_code < 500
    if response.status_code != 200:
        errors_of(response)


@pytest.mark.parametrize("name", ["Inference-Header-Content-Length", "Content-Encoding"])
async def test_a_header_that_is_given_twice_is_not_guessed_at(client, name):
    response = await client.post("/v2/models/toy/infer", content=b"{}", headers=[(name, "2"), (name, "1")])
    assert response.status_code == 400
    assert response.json()["error"].startswith(name)


@pytest.mark.parametrize("place", ["/version/1", "/versions/", "/versions/1/x", "//"])
async def test_a_path_that_only_looks_like_the_call_is_unknown(client, place):
    response = await client.post(f"/v2/models/toy{place}/infer", json=image_request())
    assert response.status_code == 404


async def test_behind_a_root_path(client, app_of):
    transport = httpx.ASGITransport(app_of(None), root_path="/behind")
    async with httpx.AsyncClient(transport=transport, base_url="http://server/behind") as behind:
        assert (await behind.post("/v2/models/toy/infer", json=image_request())).status_code == 200
