"""What the specification and its own test suite ask of a service that receives `traceparent`."""

import pytest

from service.protocol.trace_context import TraceParent, trace_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def parse(*values: str, state: tuple[str, ...] = ()) -> TraceParent | None:
    parents = [(b"traceparent", value.encode("latin-1")) for value in values]
    return trace_parent([(b"host", b"x"), *parents, *((b"tracestate", value.encode()) for value in state)])


def test_the_clients_span():
    assert parse(GOOD) == TraceParent(TRACE, SPAN, sampled=True)
    assert parse() is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_only_the_lowest_flag_says_that_it_is_recorded(flags, sampled):
    assert parse(f"00-{TRACE}-{SPAN}-{flags}").sampled is sampled


@pytest.mark.parametrize("more", ["", "-", "-what-the-future-will-be-like"])
def test_a_later_version_may_say_more(more):
    assert parse(f"cc-{TRACE}-{SPAN}-01{more}") == TraceParent(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-.0",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}g-01",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD},{GOOD}",
        f"{GOOD}\n",
        "00-" + "é" * 32 + f"-{SPAN}-01",
    ],
)
def test_what_is_malformed_is_as_if_it_were_not_there(value):
    assert parse(value, state=("a=1",)) is None


def test_two_of_them_are_none():
    assert parse(GOOD, GOOD) is None


def test_the_state_comes_along():
    assert parse(GOOD, state=("rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE")).state == (
        "rojo=00f067aa0ba902b7",
        "congo=t61rcWkgMzE",
    )
