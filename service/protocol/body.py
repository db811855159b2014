"""Bodies as bytes: reading one under a limit, and the gzip and deflate encodings in both directions.

``deflate`` is the zlib format, as HTTP has it (RFC 9110 §8.4.1). A compressed body is stopped as soon as its output
passes the limit, however little of it was sent.
"""

import asyncio
import zlib
from collections.abc import Mapping

from starlette.types import Receive

from service.errors import ClientGone, InvalidRequest, TooLarge, TooSlow

# Above these sizes zlib is worth a thread: it releases the GIL, and the event loop keeps its other requests moving.
INFLATE_IN_THREAD = 2 * 1024
DEFLATE_IN_THREAD = 64 * 1024
# Below this a compressed answer is no smaller than the headers it saves.
COMPRESS_FROM = 256

BODY_SECONDS = 60.0

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


async def receive_body(
    headers: Mapping[str, str], receive: Receive, limit: int, seconds: float | None = BODY_SECONDS
) -> bytes:
    """The decompressed body of one request.

    Raises TooLarge over ``limit`` bytes (declared, sent or decompressed), InvalidRequest for a Content-Encoding that is
    unknown or does not hold, TooSlow when it is not there after ``seconds`` (None where it is known to be there),
    ClientGone when the connection ends first.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    try:
        if seconds is None:
            body = await _receive_all(receive, limit)
        else:
            async with asyncio.timeout(seconds):
                body = await _receive_all(receive, limit)
    except TimeoutError:
        raise TooSlow(f"body: was not there {seconds:g} s after its headers") from None
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if len(body) <= INFLATE_IN_THREAD:
        return decompress(body, encoding, limit)
    return await asyncio.to_thread(decompress, body, encoding, limit)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """What ``body`` holds under one Content-Encoding; never makes more than ``limit`` + 1 bytes."""
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise InvalidRequest(f"'{encoding}' is not supported; use gzip, deflate or identity", "Content-Encoding")
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {encoding} data ({error})", "Content-Encoding") from None
    if len(plain) > limit:
        raise _too_large(limit, "once decompressed")
    if not inflater.eof:
        raise InvalidRequest(f"the {encoding} data ends too early", "Content-Encoding")
    if inflater.unused_data:
        raise InvalidRequest(f"bytes follow the {encoding} data", "Content-Encoding")
    return plain


async def compress_for(accept_encoding: str, body: bytes) -> tuple[bytes, str | None]:
    """The body in the client's preferred encoding of gzip and deflate, and its name; None when it goes as it is."""
    if not accept_encoding or len(body) < COMPRESS_FROM:
        return body, None
    encoding = accepted_encoding(accept_encoding)
    if encoding is None:
        return body, None
    if len(body) < DEFLATE_IN_THREAD:
        return compress(body, encoding), encoding
    return await asyncio.to_thread(compress, body, encoding), encoding


def compress(body: bytes, encoding: str) -> bytes:
    """``body`` as gzip or deflate, at zlib's fastest level: tensors of floats hardly gain from the slower ones."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return deflater.compress(body) + deflater.flush()


def accepted_encoding(accept_encoding: str) -> str | None:
    """Which of gzip and deflate the header prefers (RFC 9110 §12.5.3); None when it names neither.

    >>> accepted_encoding("br, deflate;q=0.5, gzip;q=0.8")
    'gzip'
    """
    weights = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter.strip())
    gzip, deflate = weights.get("gzip", 0.0), weights.get("deflate", 0.0)
    if max(gzip, deflate) == 0.0:
        return None
    return "gzip" if gzip >= deflate else "deflate"


def _weight(parameter: str) -> float:
    if not parameter.startswith("q="):
        return 1.0
    try:
        weight = float(parameter[2:])
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


async def _receive_all(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone("the client closed the connection before its body was there")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int, when: str = "") -> TooLarge:
    return TooLarge(f"body: is over the limit of {limit} bytes {when}".rstrip())
