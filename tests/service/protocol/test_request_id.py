import re

import pytest

from service.protocol.request_id import LENGTH, RequestIds


def test_each_request_gets_another():
    ids = RequestIds()
    made = [ids.of(None) for _ in range(100)]
    assert len(set(made)) == 100
    assert RequestIds().make() not in made
    assert all(re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", one) for one in made)


@pytest.mark.parametrize("given", [b"a", b"7c9e6679-7425-40de-944b-e07fc1f90ae7", b"order/7:eu=1+2~x@y.z_-"])
def test_a_clients_own_is_kept(given):
    assert RequestIds().of(given) == given


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"a\r\nx-evil: 1", b"ax-evil:1"),
        (b'"}\n{"severity": "error', b"severity:error"),
        (b"\x1b[31mred", b"31mred"),
        ("número".encode(), b"nmero"),
        (b"a" * 10_000, b"a" * LENGTH),
    ],
)
def test_what_could_forge_a_line_or_a_header_is_left_out(given, kept):
    assert RequestIds().of(given) == kept


@pytest.mark.parametrize("given", [b"", b" \t", b'"', b"\xff\xfe" * 5000])
def test_where_nothing_is_left_one_is_made(given):
    assert re.fullmatch(rb"[0-9a-f]{12}-1", RequestIds().of(given))
