"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as OpenAI's API uses them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import ClientGone
from service.protocol.disconnect import caller_of, unless_disconnected

READ_SECONDS = 30.0
"""How long a client may take none of what was sent to it."""


class EventStream(Response):
    """Sends each of `events` as soon as it is there. They are closed when the client closes its connection, or does not
    read for `read_seconds`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], read_seconds: float = READ_SECONDS) -> None:
        # Proxies hold back what they think is a page.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._read_seconds = read_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = caller_of(scope)
        try:
            await unless_disconnected(self._send(send), receive, caller)
        except ClientGone:
            return
        except TimeoutError:
            # To close it would be to wait until what was sent before is read.
            if caller is not None:
                caller.hang_up()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in events:
                async with asyncio.timeout(self._read_seconds):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(data: bytes) -> bytes:
    """One event, of one line of data."""
    return b"data: " + data + b"\n\n"
