"""OpenAI's calls, by its own client."""

import asyncio
import base64

import numpy as np
import openai
import pytest

from models.model import GateContext, TensorSpec
from service.engine.request import Finished
from service.errors import Expired, InvalidRequest, Refused
from tests.service.protocol.conftest import LIMITS
from tests.service.protocol.fakes import FakeEngine, ToyModel
from tests.service.protocol.openai_calls import openai_client, openai_http


class ToyEmbedder(ToyModel):
    """A text becomes (its length, 1, 0, 2), as a unit vector; a token is a byte."""

    name = "words"
    inputs = (TensorSpec("text", "BYTES", (-1,)),)
    outputs = (TensorSpec("embedding", "FP32", (-1, 4)),)

    def tokens(self, text):
        return np.frombuffer(text, np.uint8).astype(np.int64)


def vector(text):
    values = np.array([len(text), 1, 0, 2], np.float32)
    return values / np.linalg.norm(values)


class EmbeddingEngine(FakeEngine):
    async def submit(self, request):
        await self.taken(request)
        vectors = np.stack([vector(text) for text in request.inputs["text"]])
        context = GateContext(0.25, macs=100, macs_skipped=30)
        return Finished("", {"embedding": vectors}, 0.25, 0.99, context, 0.001, 0.002, 0.004, True)


@pytest.fixture
def engine():
    return EmbeddingEngine(toy=ToyEmbedder())


@pytest.fixture
def http(engine):
    return openai_http(engine)


@pytest.fixture
def client(http):
    return openai_client(http)


async def test_models(client):
    (listed,) = (await client.models.list()).data
    assert (listed.id, listed.object, listed.owned_by) == ("words", "model", "sluice")
    assert (await client.models.retrieve("words")).id == "words"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("other")
    assert missing.value.code == "model_not_found"


async def test_a_model_that_makes_no_embeddings_is_not_among_them(client, engine):
    engine.toy = ToyModel()
    assert (await client.models.list()).data == []
    with pytest.raises(openai.BadRequestError, match="'toy' does not make embeddings") as refused:
        await client.embeddings.create(model="toy", input="x")
    assert refused.value.param == "model"


@pytest.mark.parametrize("texts", ["one", ["one", "three", "zwölf"]])
@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_embeddings_of_texts(client, engine, texts, encoding):
    given = {} if encoding is None else {"encoding_format": encoding}
    answer = await client.embeddings.create(model="words", input=texts, **given)
    texts = [texts] if isinstance(texts, str) else texts
    assert [item.index for item in answer.data] == list(range(len(texts)))
    for item, text in zip(answer.data, texts, strict=True):
        value = item.embedding
        if encoding == "base64":
            value = np.frombuffer(base64.b64decode(value), "<f4")
        np.testing.assert_allclose(value, vector(text.encode()), rtol=1e-6)
    assert answer.model == "words"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(text.encode()) for text in texts)
    assert [request.protocol for request in engine.submitted] == ["openai"]


async def test_our_parameters_go_in_and_come_back(client, engine):
    extra = {"slo_ms": 20, "quality_floor": 0.9, "level": 0.5, "priority": 2}
    answer = await client.embeddings.create(model="words", input="x", extra_body=extra)
    (request,) = engine.submitted
    assert (request.options.slo_ms, request.options.quality_floor, request.options.level) == (20, 0.9, 0.5)
    assert request.options.priority == 2
    assert answer.model_extra["sluice"]["macs_skipped"] == 0.3
    assert answer.model_extra["sluice"]["slo_met"] is True


async def test_fewer_dimensions_are_unit_vectors_again(client):
    answer = await client.embeddings.create(model="words", input="abc", dimensions=2)
    np.testing.assert_allclose(answer.data[0].embedding, np.array([3, 1]) / np.sqrt(10), rtol=1e-6)


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": 7, "input": "x"}, "model"),
        ({"model": "words"}, "input"),
        ({"model": "words", "input": []}, "input"),
        ({"model": "words", "input": ""}, "input"),
        ({"model": "words", "input": ["a", ""]}, "input[1]"),
        ({"model": "words", "input": ["a", 3]}, "input[1]"),
        ({"model": "words", "input": [[1, 2]]}, "input[0]"),
        ({"model": "words", "input": {"a": 1}}, "input"),
        ({"model": "words", "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"model": "words", "input": "x", "dimensions": 0}, "dimensions"),
        ({"model": "words", "input": "x", "dimensions": 5}, "dimensions"),
        ({"model": "words", "input": "x", "dimensions": True}, "dimensions"),
        ({"model": "words", "input": "x", "slo_ms": -1}, "slo_ms"),
        ({"model": "words", "input": "x", "level": "high"}, "level"),
        ({"model": "words", "input": "x", "level": [1]}, "level"),
        ({"model": "words", "input": "x", "timeout": 0}, "timeout"),
        ({"model": "words", "input": "x", "nonsense": 1}, "nonsense"),
        ([], "body"),
    ],
)
async def test_a_bad_request_names_the_field_in_their_shape(http, engine, request_body, param):
    response = await http.post("/v1/embeddings", json=request_body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]
    assert engine.submitted == []
    ((_, protocol, told),) = engine.rejected
    assert (protocol, told.outcome) == ("openai", "invalid")


@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "words", "input": NaN}', b'{"input": "\\ud800"}', b"\xff" * 9])
async def test_what_is_no_json(http, body):
    response = await http.post("/v1/embeddings", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_a_body_over_the_limit(http):
    response = await http.post("/v1/embeddings", json={"model": "words", "input": "x" * LIMITS.body_bytes})
    assert response.status_code == 413


async def test_an_unknown_model_and_an_unknown_call(client, http):
    with pytest.raises(openai.NotFoundError) as missing:
        await client.embeddings.create(model="other", input="x")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/images/generations"), ("GET", "/v1"), ("OPTIONS", "/v1/nothing"), ("POST", "/v1/embeddings/")],
)
async def test_what_is_not_there_is_no_model_that_is_missing(http, method, path):
    response = await http.request(method, path)
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"].startswith(f"Unknown request URL: {method} {path}.")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("OPTIONS", "/v1/audio/transcriptions", "POST"),
        ("DELETE", "/v1/models/words", "GET"),
    ],
)
async def test_another_method_is_told_which_is_right(http, method, path, allowed):
    response = await http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["error"]["code"] == "method_not_allowed"


async def test_what_is_null_is_as_if_it_were_not_there(http):
    fields = {"encoding_format": None, "dimensions": None, "user": None, "slo_ms": None}
    response = await http.post("/v1/embeddings", json={"model": "words", "input": "x", **fields})
    assert response.status_code == 200


async def test_what_the_model_refuses_is_about_the_input(client, engine):
    engine.error = InvalidRequest("a request holds 1 to 2048 texts, got 3000", "text")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.embeddings.create(model="words", input="x")
    assert refused.value.param == "input"


@pytest.mark.parametrize(("error", "code"), [(Refused("busy", 2.0), "refused"), (Expired("late"), "expired")])
async def test_an_overloaded_server_says_when_to_come_back(client, engine, error, code):
    engine.error = error
    with pytest.raises(openai.InternalServerError) as refused:
        await client.embeddings.create(model="words", input="x")
    assert (refused.value.status_code, refused.value.code) == (503, code)
    if code == "refused":
        assert refused.value.response.headers["retry-after"] == "2"


async def test_a_fault_of_ours_is_counted_and_in_their_shape(http, engine):
    engine.toy.outputs = None
    response = await http.post("/v1/embeddings", json={"model": "words", "input": "x", "dimensions": 2})
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    ((model, protocol, told),) = engine.rejected
    assert (model, protocol, told.outcome) == ("words", "openai", "error")


async def test_a_client_that_leaves_withdraws_its_request(client, engine):
    engine.gate = asyncio.Event()
    call = asyncio.create_task(client.embeddings.create(model="words", input="x"))
    while not engine.submitted:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.cancelled == 1
