"""HTTP/1.1 below ASGI: what uvicorn's parser answers itself, answered as the protocol wants it, and bounds on a head.

>>> uvicorn.run(app, http=HttpProtocol, ws="none")          # doctest: +SKIP
"""

import re
import secrets
from asyncio import BaseTransport, TimerHandle
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.protocol.disconnect import CALLER, Caller

HEAD_BYTES = 64 * 1024
"""The most that a request's line and headers may take."""
_UPGRADE = re.compile(rb"(?i)(?<=\r\n)upgrade(?=[ \t]*:)")


class HttpProtocol(HttpToolsProtocol):
    """Of one connection. A request that is no HTTP, or whose head is too large or too slow, gets ``{"error": …}`` and
    the connection ends.
    """

    _in_head = True
    _begun = False
    _head_bytes = 0
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._caller = Caller(self.transport.abort)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        self._caller.leave()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if b"pgrade" in data or b"PGRADE" in data:
                data = _without_upgrade(data)
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are over {HEAD_BYTES} bytes")
        elif self._begun or (self._in_head and self._head_bytes):
            # Only for a head that did not come at once, which is rare: a timer for each request would cost more.
            self._start_head_timer()

    def on_message_begin(self) -> None:
        self._begun = True
        self._caller.has_sent = False
        super().on_message_begin()
        self.scope[CALLER] = self._caller  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._caller.has_sent = True
        self._in_head, self._head_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        self._end(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP/1.1 request")

    def _head_is_late(self) -> None:
        if self._head_bytes:
            self._end(HTTPStatus.REQUEST_TIMEOUT, f"the headers took more than {self.timeout_keep_alive} s")
        else:
            self.transport.close()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, status: HTTPStatus, error: str) -> None:
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": error})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-type: application/json\r\n"
            f"x-request-id: {secrets.token_hex(8)}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """The same bytes with another name for an Upgrade header.

    Nothing can be upgraded to here, and then such a request is to be served as if it did not ask (RFC 9110 §7.8). The
    parser would stop at the end of its head and drop the body; Java's own client asks for h2c with every first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-asked", head) + end + rest
