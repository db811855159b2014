import asyncio
import gzip
import zlib

import pytest

from service.errors import ClientGone, InvalidRequest, TooLarge, TooSlow
from service.protocol.body import accepted_encoding, compress_for, decompress, receive_body

LIMIT = 10_000


def receiver(*chunks: bytes, disconnect: bool = False):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if not disconnect:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    pending = iter(messages)

    async def receive():
        return next(pending)

    return receive, pending


@pytest.mark.parametrize("chunks", [[b""], [b"abc"], [b"a", b"", b"bc"]])
async def test_plain(chunks):
    receive, _ = receiver(*chunks)
    assert await receive_body({}, receive, LIMIT) == b"".join(chunks)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate"])
@pytest.mark.parametrize("plain", [b"", b"text " * 100, bytes(range(256)) * 39])
async def test_encoded(encoding, plain):
    sent = zlib.compress(plain) if encoding == "deflate" else gzip.compress(plain)
    receive, _ = receiver(sent[:7], sent[7:])
    assert await receive_body({"content-encoding": encoding}, receive, LIMIT) == plain


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
async def test_exactly_the_limit_is_allowed_and_one_byte_more_is_not(encoding):
    def encode(body):
        return {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding](body)

    receive, _ = receiver(encode(b"a" * LIMIT))
    assert len(await receive_body({"content-encoding": encoding}, receive, LIMIT)) == LIMIT
    receive, _ = receiver(encode(b"a" * (LIMIT + 1)))
    with pytest.raises(TooLarge, match="body"):
        await receive_body({"content-encoding": encoding}, receive, LIMIT)


async def test_a_declared_length_over_the_limit_is_refused_unread():
    receive, pending = receiver(b"a")
    with pytest.raises(TooLarge):
        await receive_body({"content-length": str(LIMIT + 1)}, receive, LIMIT)
    assert next(pending)["type"] == "http.request"


async def test_reading_stops_at_the_limit():
    receive, pending = receiver(*[b"a" * 1000] * 50)
    with pytest.raises(TooLarge):
        await receive_body({}, receive, LIMIT)
    assert len(list(pending)) == 50 - 11 + 1


async def test_a_gzip_bomb_is_stopped_at_the_limit():
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(TooLarge, match="decompressed"):
        decompress(bomb, "gzip", 60_000)
    receive, _ = receiver(bomb)
    with pytest.raises(TooLarge, match="decompressed"):
        await receive_body({"content-encoding": "gzip"}, receive, 60_000)


# Without a time: they name tests, which every process that runs some is to find by the same names.
ABC = gzip.compress(b"abc", mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"plain text"),
        ("gzip", ABC[:-1]),
        ("gzip", ABC[:-8] + b"\0" * 8),
        ("gzip", ABC + b"x"),
        ("gzip", ABC + gzip.compress(b"def", mtime=0)),
        ("deflate", b"plain text"),
        ("deflate", zlib.compress(b"abc")[:-1]),
        ("deflate", ABC),
        ("br", b"abc"),
        ("gzip, gzip", gzip.compress(ABC, mtime=0)),
        ("*", b"abc"),
    ],
)
def test_what_does_not_hold_is_refused_by_name(encoding, body):
    with pytest.raises(InvalidRequest) as caught:
        decompress(body, encoding, LIMIT)
    assert caught.value.field == "Content-Encoding"


async def test_a_client_that_leaves_while_sending():
    receive, _ = receiver(b"abc", disconnect=True)
    with pytest.raises(ClientGone):
        await receive_body({}, receive, LIMIT)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.2, deflate;q=0.7", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate", "deflate"),
        ("br", None),
        ("br, zstd, *", None),
        ("gzip;q=nan", None),
        ("gzip;q=x, ,;", None),
        ("gzip;q=7", None),
        ("identity", None),
    ],
)
def test_accepted_encoding(header, encoding):
    assert accepted_encoding(header) == encoding


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_compressed_answers(size):
    body = b"a" * size
    packed, encoding = await compress_for("gzip", body)
    assert encoding == "gzip" and gzip.decompress(packed) == body
    packed, encoding = await compress_for("deflate", body)
    assert encoding == "deflate" and zlib.decompress(packed) == body
    assert await compress_for("br", body) == (body, None)
    assert await compress_for("", body) == (body, None)


async def test_short_answers_go_as_they_are():
    assert await compress_for("gzip", b"{}") == (b"{}", None)


async def test_a_body_that_does_not_come_is_given_up():
    async def receive():
        await asyncio.Event().wait()

    with pytest.raises(TooSlow, match="body"):
        await receive_body({"content-length": "9"}, receive, 100, seconds=0.01)
