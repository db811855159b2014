"""Listening: uvicorn as this server runs it, and a stop that loses nothing."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.protocol.http import HttpProtocol

Drain = Callable[[], Awaitable[None]]


def listen(app: FastAPI, host: str, port: int, grace_seconds: float) -> None:
    """Serves ``app`` until the process is told to end. Then `app.state.drain` is awaited, where there is one, while the
    port stays open; what is still inside afterwards has ``grace_seconds``. Ends the process where it cannot listen.
    """
    server = Server(config_of(app, host, port, grace_seconds), getattr(app.state, "drain", None))
    # What was imported and built stays. A collector that looks at all of it again and again takes a seventh of the time
    # of a request.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise SystemExit(3)


def config_of(app: FastAPI, host: str, port: int, grace_seconds: float) -> uvicorn.Config:
    """uvicorn's settings."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the application has them, behind what does not ask who the client is
        server_header=False,
        http=HttpProtocol,
        ws="none",
        # Longer than clients keep idle connections: one closed under a request is an error that they would see.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )


class Server(uvicorn.Server):
    """On the first signal the app drains: it says that it is not ready, and refuses what is new with an answer. uvicorn
    alone would close the port at once, and clients would see a broken connection. A second signal does that.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain | None) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._told = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told or self._drain is None or self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._told = True
        self._loop.call_soon_threadsafe(self._begin, self._drain, sig)

    def _begin(self, drain: Drain, sig: int) -> None:
        async def finish() -> None:
            try:
                await drain()
            finally:
                super(Server, self).handle_exit(sig, None)

        self._draining = asyncio.ensure_future(finish())
