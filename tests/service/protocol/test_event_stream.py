import asyncio

import pytest

from service.protocol.disconnect import CALLER, Caller
from service.protocol.event_stream import EventStream, event


class Client:
    """Of an ASGI call: reads `reads` messages and then none, and stays until told to leave."""

    def __init__(self, reads=1000):
        self.got = []
        self.leaves = asyncio.Event()
        self._reads = reads

    async def receive(self):
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if len(self.got) >= self._reads:
            await asyncio.Event().wait()
        self.got.append(message)


class Source:
    """Events without end, or so many; notes that it was closed."""

    def __init__(self, count=10**9):
        self.made, self.closed = 0, False
        self._count = count

    async def __call__(self):
        try:
            while self.made < self._count:
                self.made += 1
                yield event(b"%d" % self.made)
                await asyncio.sleep(0.001)
        finally:
            self.closed = True


async def serve(source, client, caller=None, **options):
    scope = {"type": "http"} if caller is None else {"type": "http", CALLER: caller}
    await EventStream(source(), **options)(scope, client.receive, client.send)


async def test_events_are_sent_one_by_one_and_the_end_is_told():
    source, client = Source(3), Client()
    await serve(source, client)
    start, *bodies = client.got
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert [body["body"] for body in bodies] == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n", b""]
    assert [body["more_body"] for body in bodies] == [True, True, True, False]
    assert source.closed


async def test_a_client_that_leaves_closes_them():
    source, client = Source(), Client()
    task = asyncio.create_task(serve(source, client))
    while source.made < 3:
        await asyncio.sleep(0.001)
    client.leaves.set()
    await asyncio.wait_for(task, 1)
    assert source.closed
    assert client.got[-1]["more_body"]


async def test_a_client_that_does_not_read_closes_them_too():
    source, client = Source(), Client(reads=4)
    await asyncio.wait_for(serve(source, client, read_seconds=0.02), 1)
    assert source.closed
    # Nothing was made for which there was no place.
    assert source.made == 4


async def test_the_connection_of_a_client_that_does_not_read_ends_at_once():
    hung_up = []
    await serve(Source(), Client(reads=4), Caller(lambda: hung_up.append(True)), read_seconds=0.02)
    assert hung_up == [True]
    await serve(Source(3), Client(), Caller(lambda: hung_up.append(True)))
    assert hung_up == [True]


async def test_a_server_that_stops_is_not_held_up():
    source, client = Source(), Client()
    task = asyncio.create_task(serve(source, client))
    while source.made < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed
