import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from loadtest.curve import Span, steady
from loadtest.driver import Address, DriverSettings, RemoteServer, replay, server_address
from loadtest.script import parse_event
from loadtest.slo_client import SloClient
from loadtest.summary import summarise
from loadtest.trace import Trace, generate
from loadtest.workload import Images, Judged, Post, Reply
from models.zoo.fashion_data import LabelledImages
from service.control.slo import SLO
from tests.live import serve
from tests.tiny_model import random_images, tiny_model

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Plain:
    """Sends its own number; an answer of 200 will do."""

    model = "plain"
    posts = tuple(Post(f"/{number}", {}, b"x") for number in range(50))

    def judge(self, number: int, reply: Reply) -> Judged:
        return Judged("ok" if reply.status == 200 else "error")


def at(*times: float) -> Trace:
    return Trace("t", np.array(times), (Span("all", 0, 5),))


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Address]:
    """A server that handles each request with `answer`, after reading it whole."""
    writers = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(1)
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_a_slow_server_does_not_slow_its_own_test():
    async def slow(reader, writer):
        await asyncio.sleep(0.2)
        writer.write(OK)

    async with answering(slow) as address:
        samples = await replay(address, at(*np.arange(20) * 0.01), Plain())
    assert [sample.outcome for sample in samples] == ["ok"] * 20
    # Twenty requests of 0.2 s one after the other would take 4 s: all were on their way before the first was answered.
    assert max(sample.sent for sample in samples) < min(sample.finished for sample in samples) + 0.1


async def test_waiting_for_a_connection_is_part_of_the_latency():
    async def slow(reader, writer):
        await asyncio.sleep(0.1)
        writer.write(OK)

    async with answering(slow) as address:
        samples = await replay(address, at(0, 0, 0), Plain(), DriverSettings(connections=1))
    assert [sample.latency for sample in samples] == sorted(sample.latency for sample in samples)
    assert samples[2].latency >= 0.3
    assert samples[2].sent - samples[2].scheduled >= 0.2


async def test_requests_without_an_answer_are_given_up():
    async def silent(reader, writer):
        await asyncio.sleep(60)

    async with answering(silent) as address:
        samples = await replay(address, at(0, 0.05), Plain(), DriverSettings(connections=1, give_up_seconds=0.2))
    assert [sample.outcome for sample in samples] == ["timeout", "timeout"]
    assert np.isnan(samples[0].finished)


async def test_broken_connections_are_errors_and_the_rest_goes_on():
    seen = []

    async def moody(reader, writer):
        seen.append(len(seen))
        if len(seen) % 2:
            writer.close()
        else:
            writer.write(OK)

    async with answering(moody) as address:
        samples = await replay(address, at(*np.arange(10) * 0.02), Plain(), DriverSettings(connections=1))
    assert [sample.outcome for sample in samples] == ["error", "ok"] * 5


@pytest.mark.parametrize("wrong", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_answers_that_are_not_http_are_errors(wrong):
    async def answer(reader, writer):
        writer.write(wrong)

    async with answering(answer) as address:
        samples = await replay(address, at(0, 0.02), Plain())
    assert [sample.outcome for sample in samples] == ["error", "error"]


async def test_answers_in_pieces_and_without_keep_alive():
    async def pieces(reader, writer):
        for byte in b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        writer.close()

    async with answering(pieces) as address:
        samples = await replay(address, at(0, 0.02, 0.04), Plain(), DriverSettings(connections=1))
    assert [sample.outcome for sample in samples] == ["ok"] * 3


async def test_nobody_listens():
    with pytest.raises(OSError):
        await replay(Address("127.0.0.1", 9), at(0), Plain())


@pytest.mark.parametrize("spin", [False, True])
async def test_requests_are_sent_when_they_are_due(spin):
    async def answer(reader, writer):
        writer.write(OK)

    async with answering(answer) as address:
        samples = await replay(address, at(0.05, 0.1, 0.15), Plain(), DriverSettings(spin=spin))
    assert all(sample.sent >= sample.scheduled for sample in samples)
    assert all(sample.latency < 0.5 for sample in samples)


def test_only_this_machine_unless_asked():
    assert server_address("http://127.0.0.1:8000/") == Address("127.0.0.1", 8000)
    assert str(server_address("http://[::1]:8000")) == "[::1]:8000"
    with pytest.raises(RemoteServer):
        server_address("http://example.com")
    assert server_address("http://example.com", allow_remote=True) == Address("example.com", 80)
    for url in ("127.0.0.1:8000", "https://127.0.0.1", "http://127.0.0.1/v2"):
        with pytest.raises(ValueError, match="http://host:port"):
            server_address(url)


async def test_a_real_server_with_a_change_of_its_slo(tmp_path):
    data = LabelledImages(random_images(8), np.zeros(8, np.int64))
    trace = generate("t", steady(60, 1.5), seed=1)
    with serve([tiny_model()], tmp_path, slo_latency_ms=5000) as server:
        url = f"http://{server.address}"
        client = SloClient(url, "fashion")
        before = client.read()
        event = parse_event("0.5:latency_ms=4000")
        samples = await replay(server_address(url), trace, Images(data), events=(event,), apply=client.apply)
        assert client.read() == before.patched(event.changes) == SLO(4000)
        counted = server.metrics()['sluice_requests_total{model="fashion",outcome="ok",protocol="v2"}']
    summary = summarise(trace, samples, lambda _: before)
    assert summary["outcomes"] == {"ok": len(trace.times)}
    assert counted == len(trace.times)
    assert summary["attainment"] == 1
    assert summary["level"] == 0
    assert 0 <= summary["quality"] <= 1
