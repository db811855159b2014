"""What happens while a load test runs: changes of the SLO at given times. Pure.

>>> parse_event("30:latency_ms=5,percentile=99.9").changes
{'latency_ms': 5.0, 'percentile': 99.9}
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from service.control.generation_slo import Objective


@dataclass(frozen=True, slots=True)
class Event:
    """`at` seconds from the start the SLO gets these values."""

    at: float
    changes: dict[str, float | bool]


@dataclass(frozen=True, slots=True)
class Script:
    """The SLO at the start, and the events in order of time. Raises `InvalidSLO` for a change that cannot be."""

    slo: Objective
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if [event.at for event in self.events] != sorted(event.at for event in self.events):
            raise ValueError("events must be in order of time")
        self.at(math.inf)

    def at(self, seconds: float) -> Objective:
        """The SLO that a request arriving then is judged with."""
        slo: Objective = self.slo
        for event in self.events:
            if event.at <= seconds:
                slo = slo.patched(event.changes)
        return slo

    def with_events(self, events: Iterable[Event]) -> "Script":
        return replace(self, events=tuple(sorted(events, key=lambda event: event.at)))


def parse_event(text: str) -> Event:
    """`SECONDS:NAME=VALUE[,NAME=VALUE…]`, the names and values of an SLO. Raises `ValueError`."""
    when, _, what = text.partition(":")
    try:
        at = float(when)
        pairs = [pair.split("=", 1) for pair in what.split(",")]
        changes = {name.strip(): _value(value.strip()) for name, value in pairs}
    except ValueError:
        raise ValueError(f"an event is SECONDS:NAME=VALUE, such as 30:latency_ms=5; got {text!r}") from None
    if not (math.isfinite(at) and at >= 0):
        raise ValueError(f"an event's time must be 0 s or more, got {text!r}")
    return Event(at, changes)


def _value(text: str) -> float | bool:
    return text == "true" if text in ("true", "false") else float(text)
