"""W3C Trace Context (https://www.w3.org/TR/trace-context/): where in a client's trace a request belongs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """``trace_id`` and ``span_id`` are lower-case hex, ``sampled`` whether the client records the trace, ``state`` the
    members of `tracestate` as they came.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: tuple[str, ...] = ()


def trace_parent(headers: Iterable[tuple[bytes, bytes]]) -> TraceParent | None:
    """The client's span, from headers whose names are lower-case; None without one, and for one that the specification
    wants ignored: not of its form, an id of zeros, the forbidden version ff, given twice.

    A version that is not known yet may say more after another dash.

    >>> trace_parent([(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]).sampled
    True
    """
    parents: list[bytes] = []
    states: list[str] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    found = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return TraceParent(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & _SAMPLED), tuple(states))
