"""One kept-alive HTTP/1.1 connection for the load driver, one request at a time, and the pool of them.

A general client spends more time on a request than a fast server does; this one writes bytes that were made before and
reads with httptools.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from loadtest.workload import Post, Reply

Done = Callable[[Reply | None], None]


@dataclass(slots=True)
class Call:
    """A request on its way: `done` is called once, with None where the connection broke; `sent` when it is written."""

    data: bytes
    sent: Callable[[], None]
    done: Done
    connection: "Connection | None" = None
    over: bool = False

    def finish(self, reply: Reply | None) -> None:
        if not self.over:
            self.over = True
            self.done(reply)


def encode(post: Post, host: str) -> bytes:
    """The request's bytes as they go over the wire."""
    headers = {"Host": host, **post.headers, "Content-Length": str(len(post.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {post.path} HTTP/1.1\r\n{lines}\r\n".encode() + post.body


class Connection(asyncio.Protocol):
    """Calls back with the response, or None where it was closed before."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._call: Call | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def start(self, call: Call) -> None:
        assert self._transport is not None
        self._call, call.connection = call, self
        call.sent()
        self._transport.write(call.data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        call, self._call = self._call, None
        self._pool.lost(self)
        if call is not None:
            call.finish(None)

    # httptools calls the rest.

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        call, self._call = self._call, None
        if call is None:
            self.close()
            return
        call.finish(Reply(self._parser.get_status_code(), self._headers, self._body))
        if self._parser.should_keep_alive():
            self._pool.free(self)
        else:
            self.close()


class Pool:
    """At most `limit` connections, opened as they are needed; calls beyond wait in order of arrival."""

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._host, self._port, self._limit = host, port, limit
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()

    async def open(self, count: int) -> None:
        """Opens connections beforehand. Raises `OSError` where nobody listens."""
        loop = asyncio.get_running_loop()
        for _ in range(min(count, self._limit)):
            _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
            self._open.add(connection)
            self._idle.append(connection)

    def submit(self, call: Call) -> None:
        # The one used last is the one least likely to have been closed by the server meanwhile.
        if self._idle:
            self._idle.pop().start(call)
            return
        self._waiting.append(call)
        self._grow()

    def free(self, connection: Connection) -> None:
        call = self._next()
        if call is not None:
            connection.start(call)
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._grow()

    def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        for task in self._opening:
            task.cancel()

    def _grow(self) -> None:
        if len(self._open) + len(self._opening) < self._limit:
            task = asyncio.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        except OSError:
            call = self._next()
            if call is not None:
                call.finish(None)
            return
        self._open.add(connection)
        self.free(connection)

    def _next(self) -> Call | None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.over:
                return call
        return None
