"""Traces: when the requests of a load test arrive, in seconds from its start, and what its phases are.

Arrivals are drawn by time rescaling: gaps of mean 1 from a Gamma distribution, sent through the inverse of the rate's
integral. A coefficient of variation of 1 is a Poisson process; above 1 arrivals come in clumps, as inference traffic
does (AlpaServe, OSDI 2023, and BurstGPT, 2024, describe theirs by the Gamma's coefficient of variation).

A trace file is text: a first line of `# ` and a JSON object, then a time a line. A file of times alone is a trace too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.curve import Curve, Span

LONGEST_SECONDS = 24 * 3600.0
MOST_ARRIVALS = 1_000_000
_DECIMALS = 4


class InvalidTrace(ValueError):
    """A file that holds no trace, or one too large to be replayed."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """`times` float64 [n] in ascending order, each 0 <= t < `seconds`. Raises `InvalidTrace`."""

    name: str
    times: NDArray[np.float64]
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        times = self.times
        if not 0 < len(times) <= MOST_ARRIVALS:
            raise InvalidTrace(f"{self.name}: a trace has 1 to {MOST_ARRIVALS} arrivals, this one {len(times)}")
        if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) < 0).any():
            raise InvalidTrace(f"{self.name}: arrival times must be 0 or more and ascend")
        if not self.spans or not times[-1] < self.seconds <= LONGEST_SECONDS:
            raise InvalidTrace(f"{self.name}: its phases must reach past the last arrival and end within a day")

    @property
    def seconds(self) -> float:
        return self.spans[-1].end

    @property
    def rate(self) -> float:
        """Arrivals per second over all of it."""
        return len(self.times) / self.seconds

    def phase_of(self, times: NDArray[np.float64]) -> list[str]:
        """The phase's name for each time."""
        starts = [span.start for span in self.spans]
        return [self.spans[max(at - 1, 0)].name for at in np.searchsorted(starts, times, side="right")]

    def faster(self, factor: float) -> "Trace":
        """The same arrivals at `factor` times the rate: time is squeezed, phases too."""
        if not factor > 0:
            raise InvalidTrace(f"a trace cannot be replayed {factor} times as fast")
        spans = tuple(Span(span.name, span.start / factor, span.end / factor) for span in self.spans)
        return Trace(self.name, self.times / factor, spans)


def generate(name: str, curve: Curve, seed: int, variation: float = 1.0) -> Trace:
    """Arrivals along a curve; `variation` is the coefficient of variation of the gaps, 0 for even ones.

    The same seed gives the same trace. Raises `InvalidTrace` where it would be too long.
    """
    if not 0 <= variation <= 100:
        raise InvalidTrace(f"the coefficient of variation must be between 0 and 100, got {variation}")
    expected = curve.expected
    if expected > MOST_ARRIVALS:
        raise InvalidTrace(f"{name}: {expected:.0f} arrivals expected, the limit is {MOST_ARRIVALS}")
    random = np.random.default_rng(seed)
    chunk = int(expected) + 64
    counts = np.empty(0)
    while not len(counts) or counts[-1] < expected:
        gaps = np.ones(chunk) if variation == 0 else random.gamma(variation**-2, variation**2, chunk)
        counts = np.concatenate((counts, np.cumsum(gaps) + (counts[-1] if len(counts) else 0.0)))
    times = curve.time_of(counts[counts < expected])
    return Trace(name, times[times < curve.seconds], curve.spans)


def save(trace: Trace, path: Path, **about: Any) -> None:
    """Writes a trace file; `about` (the seed and so on) goes into its first line."""
    spans = [[span.name, span.start, span.end] for span in trace.spans]
    head = json.dumps({"name": trace.name, **about, "phases": spans})
    # Rounded down: a time must not reach past the end of its phase.
    scale = 10**_DECIMALS
    lines = (f"{int(time * scale) / scale:.{_DECIMALS}f}" for time in trace.times)
    path.write_text("\n".join((f"# {head}", *lines)) + "\n")


def load(path: Path) -> Trace:
    """Reads a trace file. Raises `OSError`, or `InvalidTrace` for one that holds something else."""
    lines = path.read_text(errors="replace").splitlines()
    try:
        about = json.loads(lines[0][1:]) if lines and lines[0].startswith("#") else {}
        times = np.array([float(line) for line in lines if line and not line.startswith("#")])
        spans = tuple(Span(str(name), float(start), float(end)) for name, start, end in about.get("phases", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidTrace(f"{path} is no trace file: {error}") from None
    if not spans and len(times):
        spans = (Span("all", 0.0, float(times[-1]) + 1e-3),)
    return Trace(str(about.get("name", path.stem)), times, spans)
