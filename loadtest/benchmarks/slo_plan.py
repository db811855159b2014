"""What `sluice bench slo` compares and under which load. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from loadtest.curve import Curve, bursts
from loadtest.summary import Sample
from loadtest.trace import Trace, generate
from models.gating.profile import Profile
from service.control.slo import SLO

_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """`calm` and `overloads` are multiples of the dense server's capacity; a run has `bursts` bursts of
    `burst_seconds`, which are `share` of its time.

    The SLO is `percentile` % within a latency that is `slo_factor` times a dense request's alone on the server. The
    quality floor allows `floor_points` percentage points less accuracy than dense.

    Before and after a run the dense server's capacity is measured again, for `check_seconds` alone and under load.
    Where it is more than `tolerance` of itself off, the run is repeated, up to `repeats` times.
    """

    overloads: tuple[float, ...] = (2.0, 2.5)
    calm: float = 0.6
    bursts: int = 2
    burst_seconds: float = 10.0
    share: float = 0.2
    slo_factor: float = 6.0
    percentile: float = 99.0
    floor_points: float = 1.0
    seed: int = 0
    calibration_seconds: float = 5.0
    warm_up_seconds: float = 1.0
    check_seconds: float = 2.0
    tolerance: float = 0.1
    repeats: int = 1

    def curve(self, capacity: float, overload: float) -> Curve:
        """`capacity` is the dense server's, requests per second."""
        settle = min(1.0, self.burst_seconds / 2)
        return bursts(self.calm * capacity, overload * capacity, self.burst_seconds, self.share, self.bursts, settle)

    def trace(self, capacity: float, overload: float) -> Trace:
        """Poisson arrivals along the curve, the same for every server."""
        return generate(f"bursts to {overload:g}×", self.curve(capacity, overload), self.seed)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "overloads": list(self.overloads)}


QUICK = Plan(overloads=(2.0,), bursts=1, burst_seconds=3.0, calibration_seconds=2.0, check_seconds=1.0, repeats=0)
"""Shows that everything works; too short for figures that count."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run this server: the SLO that it is given, and the parameters of each request."""

    name: str
    slo: SLO
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Floor:
    """A quality floor in the profile's unit, the level that it allows, and what accuracy to expect there, where the
    profile knows."""

    quality: float
    level: float
    accuracy: float | None


def floor_below_dense(profile: Profile, points: float) -> Floor:
    """The floor that allows `points` percentage points less accuracy than dense.

    Floors are agreement with the dense model. The profile has both columns: the level is the highest up to which
    accuracy stays within the points, and the floor is the bound of agreement there. Raises `ValueError` for a profile
    without accuracy.
    """
    dense = profile.points[0].accuracy
    if dense is None:
        raise ValueError(f"the profile of {profile.model} has no accuracy: calibrate it on labelled data")
    level = 0.0
    for step in range(_STEPS + 1):
        accuracy = profile.at(step / _STEPS).accuracy
        if accuracy is None or accuracy < dense - points / 100:
            break
        level = step / _STEPS
    quality = min(profile.at(level * step / _STEPS).quality_lower for step in range(_STEPS + 1))
    at = profile.at(level).accuracy
    return Floor(quality, level, dense if at is None else at)


def modes(slo: SLO, floor_level: float) -> tuple[Mode, ...]:
    """What the server does under its SLO, beside the alternatives that a dense server has."""
    return (
        Mode("sluice", slo),
        Mode("dense", replace(slo, quality_floor=1.0, shed=False), {"level": 0.0}),
        Mode("dense + admission", replace(slo, quality_floor=1.0)),
        Mode("always at the floor", slo, {"level": floor_level}),
    )


def capacity_share(curve: Curve, capacity: float) -> float:
    """The share of arrivals that a server of this capacity can serve at all, phase by phase; nothing is carried over.

    It bounds what refusing can do, since an SLO much shorter than a burst leaves no room to wait one out.
    """
    served = sum(min(phase.expected, capacity * phase.seconds) for phase in curve.phases)
    return served / curve.expected


def after_bursts(trace: Trace, samples: list[Sample], seconds: float = 1.0) -> list[Sample]:
    """The samples due within `seconds` of the end of a burst's settling time."""
    ends = [span.end for span in trace.spans if span.name == "settling"]
    return [sample for sample in samples if any(end <= sample.scheduled < end + seconds for end in ends)]
