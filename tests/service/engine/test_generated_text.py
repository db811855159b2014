import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.generated_text import GeneratedText


def fed(pieces, stops=()):
    text = GeneratedText(stops)
    told = []
    for piece in pieces:
        told.append(text.add(piece))
        if text.stopped:
            break
    return [*told, text.end()], text


def test_characters_come_whole():
    euro = "€".encode()
    assert fed([b"a", euro[:1], euro[1:2], euro[2:] + b"b"])[0] == ["a", "", "", "€b", ""]


def test_bytes_that_are_no_text():
    told, _ = fed([b"a\xff", b"b\xe2\x82"])
    assert "".join(told) == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    ("pieces", "stops", "text", "stopped"),
    [
        ([b"one two", b" three"], ["two"], "one ", True),
        ([b"on", b"e t", b"wo"], ["two"], "one ", True),
        ([b"on", b"e t", b"w"], ["two"], "one tw", False),
        ([b"aab"], ["ab"], "a", True),
        ([b"a", b"a", b"b"], ["aab", "b"], "", True),
        ([b"x", b"y"], ["yz", "xq"], "xy", False),
        (["€".encode()[:2], "€".encode()[2:]], ["€"], "", True),
    ],
)
def test_a_text_ends_before_the_first_stop(pieces, stops, text, stopped):
    told, generated = fed(pieces, stops)
    assert ("".join(told), generated.stopped) == (text, stopped)
    assert generated.released == len(text)


def test_what_may_become_a_stop_is_held_back_and_nothing_else():
    text = GeneratedText(["END"])
    assert [text.add(piece) for piece in (b"a", b"E", b"N", b"x", b"EE")] == ["a", "", "", "ENx", "E"]


@settings(max_examples=60, deadline=None)
@given(st.text("aäb€", max_size=12), st.lists(st.text("aäb€", min_size=1, max_size=3), max_size=3), st.data())
def test_however_it_is_cut_into_pieces(whole, stops, data):
    raw = whole.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    ends = [whole.find(stop) for stop in stops if stop in whole]
    told, text = fed(pieces, stops)
    if not ends:
        assert ("".join(told), text.stopped) == (whole, False)
    else:
        assert text.stopped
        # A longer stop that begins earlier may be complete only later.
        assert "".join(told) in {whole[:end] for end in ends}
