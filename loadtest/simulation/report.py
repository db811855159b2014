"""What a simulation found: attainment of all arrivals, refusals, quality, the tail of each phase, the level in time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.curve import Span
from loadtest.simulation.simulator import Lost, Outcome, Served
from service.errors import Refused


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """Of the first attempts that arrived in the phase. Ratios are 0 to 1, and None of nothing, as the others are.

    `attainment` counts every arrival: one that was refused or dropped is a miss. Latency, level and quality are of the
    served; `level_deviation` is the standard deviation of single requests' levels.
    """

    name: str
    arrivals: int
    attainment: float | None
    refused: int
    expired: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    level: float | None
    level_deviation: float | None
    quality: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """`returns` is for the clients that came back when told. `levels` is the mean level of each second's arrivals, None
    where none was served.
    """

    total: PhaseReport
    phases: tuple[PhaseReport, ...]
    returns: PhaseReport
    levels: tuple[float | None, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(outcomes: Sequence[Outcome], spans: Sequence[Span] = ()) -> Report:
    """Spans of one name are reported as one."""
    first = [one for one in outcomes if one.attempt == 0]
    names = dict.fromkeys(span.name for span in spans)
    starts = np.array([span.start for span in spans])
    place = np.searchsorted(starts, [one.arrival for one in first], side="right") - 1
    by_name: dict[str, list[Outcome]] = {name: [] for name in names}
    if spans:
        for one, at in zip(first, place.tolist(), strict=True):
            by_name[spans[max(at, 0)].name].append(one)
    return Report(
        total=_phase("all", first),
        phases=tuple(_phase(name, found) for name, found in by_name.items()),
        returns=_phase("returns", [one for one in outcomes if one.attempt > 0]),
        levels=_levels(first),
    )


def _phase(name: str, outcomes: Sequence[Outcome]) -> PhaseReport:
    served = [one for one in outcomes if isinstance(one, Served)]
    refused = sum(isinstance(one, Lost) and isinstance(one.error, Refused) for one in outcomes)
    latencies = np.array([one.finished - one.arrival for one in served]) * 1e3
    levels = np.array([one.level for one in served])
    return PhaseReport(
        name=name,
        arrivals=len(outcomes),
        attainment=sum(one.met for one in served) / len(outcomes) if outcomes else None,
        refused=refused,
        expired=len(outcomes) - len(served) - refused,
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
        p999_ms=_percentile(latencies, 99.9),
        level=float(levels.mean()) if served else None,
        level_deviation=float(levels.std()) if served else None,
        quality=sum(one.quality for one in served) / len(served) if served else None,
    )


def _percentile(values: NDArray[np.float64], percentile: float) -> float | None:
    return float(np.percentile(values, percentile)) if len(values) else None


def _levels(outcomes: Sequence[Outcome]) -> tuple[float | None, ...]:
    if not outcomes:
        return ()
    seconds = int(max(one.arrival for one in outcomes)) + 1
    sums, counts = [0.0] * seconds, [0] * seconds
    for one in outcomes:
        if isinstance(one, Served):
            sums[int(one.arrival)] += one.level
            counts[int(one.arrival)] += 1
    return tuple(level / count if count else None for level, count in zip(sums, counts, strict=True))
