"""The routes behind a real HTTP server and real sockets: what a test client in the same process would hide."""

import asyncio
import json
import re
import threading
import time

import pytest
import tritonclient.http as triton
import uvicorn

from service.protocol.http import HEAD_BYTES, HttpProtocol
from tests.service.protocol.conftest import LIMITS, make_app
from tests.service.protocol.fakes import FakeEngine
from tests.service.protocol.specs import image_request


@pytest.fixture(scope="module")
def engine():
    return FakeEngine()


@pytest.fixture(scope="module")
def port(engine):
    config = uvicorn.Config(
        make_app(engine), port=0, ws="none", log_level="error", http=HttpProtocol, lifespan="off", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port)


def head(length: int | str, *more: str) -> bytes:
    lines = ["POST /v2/models/toy/infer HTTP/1.1", "Host: x", f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def answer(reader) -> tuple[int, dict]:
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return status, json.loads(await reader.readexactly(length))


async def test_a_closed_connection_withdraws_the_request(engine, port):
    engine.gate = asyncio.Event()
    submitted, cancelled = len(engine.submitted), engine.cancelled
    body = json.dumps(image_request()).encode()
    _, writer = await connect(port)
    writer.write(head(len(body)) + body)
    await writer.drain()
    await until(lambda: len(engine.submitted) == submitted + 1)
    assert engine.cancelled == cancelled
    writer.close()
    await until(lambda: engine.cancelled == cancelled + 1)
    engine.gate = None


async def test_a_body_that_never_ends_is_answered_at_the_limit(port):
    reader, writer = await connect(port)
    chunk = b"%x\r\n" % 1000 + bytes(1000) + b"\r\n"
    writer.write(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    for _ in range(LIMITS.body_bytes // 1000 + 1):
        writer.write(chunk)
    status, content = await asyncio.wait_for(answer(reader), 5)
    assert status == 413
    assert content["error"].startswith("body: ")
    writer.close()


async def test_a_declared_length_over_the_limit_is_answered_before_the_body(port):
    reader, writer = await connect(port)
    writer.write(head(10**15))
    status, _ = await asyncio.wait_for(answer(reader), 5)
    assert status == 413
    writer.close()


async def test_a_connection_serves_the_next_request_after_a_refused_one(port):
    body = json.dumps(image_request()).encode()
    big = bytes(LIMITS.body_bytes + 1)
    reader, writer = await connect(port)
    for sent, length, expected in ((big, len(big), 413), (b"{}", 2, 400), (body, len(body), 200)):
        writer.write(head(length) + sent)
        await writer.drain()
        status, _ = await asyncio.wait_for(answer(reader), 5)
        assert status == expected
    writer.close()


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", id="TLS"),
        pytest.param(head(0, "Transfer-Encoding: chunked"), id="length and chunks"),
        pytest.param(head(0, "Content-Length: 9"), id="two lengths"),
        pytest.param(head("-1"), id="negative length"),
        pytest.param(head("5, 6"), id="list of lengths"),
        pytest.param(head(2**64), id="length that overflows"),
        pytest.param(head(0, "Content-Length : 9"), id="space before the colon"),
        pytest.param(head(0, "X: a\0b"), id="NUL"),
        pytest.param(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"-5\r\n", id="chunk size"),
    ],
)
async def test_what_is_no_http_gets_an_error_in_json_once(port, request_head):
    smuggled = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await connect(port)
    writer.write(request_head + smuggled)
    status, content = await asyncio.wait_for(answer(reader), 5)
    assert status in (400, 413)
    assert content["error"]
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_even_what_is_no_http_is_answered_with_an_id(port):
    reader, writer = await connect(port)
    writer.write(b"\x16\x03\x01\r\n\r\n")
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{16}\r\n", await asyncio.wait_for(reader.read(), 5))
    writer.close()


async def test_headers_have_a_limit(port):
    reader, writer = await connect(port)
    line = b"X-More: " + bytes(b"y" * 1000) + b"\r\n"
    writer.write(b"POST /v2/models/toy/infer HTTP/1.1\r\n" + line * (HEAD_BYTES // 1000 + 1))
    status, content = await asyncio.wait_for(answer(reader), 5)
    assert status == 431
    assert "headers" in content["error"]
    writer.close()


async def test_a_head_that_never_ends_is_given_up(port):
    reader, writer = await connect(port)
    writer.write(b"POST /v2/models/toy/infer HT")
    status, _ = await asyncio.wait_for(answer(reader), 5)
    assert status == 408
    silent, other = await connect(port)
    assert await asyncio.wait_for(silent.read(), 5) == b""
    writer.close()
    other.close()


@pytest.mark.parametrize("pipelined", [True, False])
async def test_nor_is_a_later_one_on_the_same_connection_waited_for(port, pipelined):
    first, second = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v2 HTTP/1.1\r\nHo"
    reader, writer = await connect(port)
    writer.write(first + second if pipelined else first)
    assert (await answer(reader))[0] == 200
    if not pipelined:
        writer.write(second)
        assert (await asyncio.wait_for(answer(reader), 5))[0] == 408
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_request_that_would_rather_speak_http2_is_served(port):
    body = json.dumps(image_request()).encode()
    reader, writer = await connect(port)
    for _ in range(2):
        writer.write(
            head(len(body), "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAE") + body
        )
        status, content = await asyncio.wait_for(answer(reader), 5)
        assert status == 200, content
    writer.close()


def test_the_public_client_reads_the_error_of_a_body_over_the_limit(port):
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    image = triton.InferInput("image", [1, 2, 3], "UINT8")
    image._raw_data = bytes(20 * LIMITS.body_bytes)
    image._parameters["binary_data_size"] = len(image._raw_data)
    with pytest.raises(triton.InferenceServerException, match="limit"):
        client.infer("toy", [image])
    client.close()
