"""The choice of a request's level: the lowest that keeps three rules.

1. The request itself finishes by its deadline.
2. Those queued behind it do, all at this level: what a burst costs is spread over it, not laid on its last requests.
3. The load, as it has been arriving over the time that a request may take, leaves so much of the capacity free that a
   queue rarely forms.

Each is linear in the share of the dense MACs that is done, so each gives a greatest share that keeps it; the least of
the shares, looked up in the profile, is the level.

Why it is stable: the third rule looks at the load alone, which the level does not change, so there is no loop that
could swing. It leaves less than all of the capacity in use, so the queue empties, and the second rule, which answers
within one run to what random clumps or a stall have queued, is seldom the one that decides.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.gating.profile import Profile
from service.control.load import Work


class Dial:
    """What a level means, as bare numbers: those of the profile that are asked for several times a request."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._levels = [point.level for point in profile.points]
        self._ratios = [point.macs_ratio for point in profile.points]
        self._qualities = [point.quality for point in profile.points]

    def macs_ratio(self, level: float) -> float:
        """The share of the dense MACs that is expected to be done at a level, 0 to 1."""
        return self._between(self._ratios, level)

    def quality(self, level: float) -> float:
        """The expected quality at a level, 0 to 1."""
        return self._between(self._qualities, level)

    def _between(self, values: Sequence[float], level: float) -> float:
        after = bisect_right(self._levels, level)
        low = values[after - 1]
        if after == len(values):
            return low
        start = self._levels[after - 1]
        return low + (level - start) / (self._levels[after] - start) * (values[after] - low)


@dataclass(slots=True)
class Demand:
    """Work that has to be done `slack` seconds from now."""

    slack: float
    work: Work


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How far the dial may go for a request, the share of the dense MACs done there, and what sets it."""

    level: float
    macs_ratio: float
    reason: str


def ceiling_of(profile: Profile, quality_floor: float, live_limit: float = 1.0, live_reason: str = "") -> Ceiling:
    """The highest level that the quality floor allows, and the quality guard, whose limit `live_reason` explains."""
    level, reason = profile.highest_level(quality_floor), f"quality floor {quality_floor:g}"
    if level >= 1:
        level, reason = 1.0, "the profile's last operating point"
    if len(profile.points) == 1:
        reason = "there is no profile: the model is served dense until it is calibrated"
    if live_limit < level:
        level, reason = live_limit, live_reason
    return Ceiling(level, profile.at(level).macs_ratio, reason)


def choose_level(
    profile: Profile,
    ceiling: Ceiling,
    own: Demand,
    behind: Iterable[Demand] = (),
    offered: Work | None = None,
    *,
    utilisation: float = 1.0,
    pinned: float | None = None,
    executors: int = 1,
    busy: float = 0.0,
    margin: float = 1.0,
    tail_ratio: float = 1.0,
) -> float:
    """The level for a request that an executor takes now.

    `behind` are those queued, in the order in which they will be taken; `offered` is the work that arrives a second,
    and `utilisation` the share of the capacity that it may take, 0 to 1. `busy` is the work, in seconds, that the other
    executors still have to do.
    Predicted finishes are stretched by `margin`, and a request's own run by `tail_ratio` too: the sum over a queue
    averages its errors out, a single run does not. `utilisation` has its margin in it. A pinned level is not bounded by
    the ceiling.
    """
    if pinned is not None:
        return pinned
    stretch = margin * tail_ratio
    fixed, scalable, slack = own.work.fixed * stretch, own.work.scalable * stretch, own.slack
    least = share_in_time(slack, fixed, scalable)
    ahead_fixed, ahead_scalable = own.work.fixed + busy, own.work.scalable
    spread = margin / executors
    for demand in behind:
        if least <= ceiling.macs_ratio:
            break
        work = demand.work
        fixed = ahead_fixed * spread + work.fixed * stretch
        scalable = ahead_scalable * spread + work.scalable * stretch
        share = share_in_time(demand.slack, fixed, scalable)
        if share < least:
            least = share
        ahead_fixed += work.fixed
        ahead_scalable += work.scalable
    if offered is not None:
        least = min(least, share_in_time(utilisation * executors, offered.fixed, offered.scalable))
    return level_of_share(profile, ceiling, least)


def fits_dense(slack: float, whole: Work, stretch: float) -> bool:
    """Whether all work together, stretched, is done at level 0 before the earliest deadline of all that wait, `slack`
    seconds from now: then each of them keeps its own, and need not be looked at.
    """
    return stretch * (whole.fixed + whole.scalable) <= slack


def share_in_time(slack: float, fixed: float, scalable: float) -> float:
    """The greatest share of the dense MACs for which fixed + share × scalable <= slack; below 0 where none is."""
    if scalable > 0:
        return (slack - fixed) / scalable
    return float("inf") if fixed <= slack else -1.0


def level_of_share(profile: Profile, ceiling: Ceiling, macs_ratio: float) -> float:
    """The lowest level that does no more than this share of the dense MACs, as far as the ceiling lets it."""
    if macs_ratio >= profile.points[0].macs_ratio:
        return 0.0
    if macs_ratio <= ceiling.macs_ratio:
        return ceiling.level
    level = profile.lowest_level(macs_ratio)
    return ceiling.level if level is None else min(level, ceiling.level)
