"""What a load test found: attainment of all arrivals, quality of the served answers, the tail of each phase. Pure.

Latency runs from the time at which a request was *scheduled*, not from when a connection was free for it; a request
that was refused or failed is a miss. So neither a slow server nor a slow client can make the result look better.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loadtest.trace import Trace
from service.control.generation_slo import GenerationSLO, Objective
from service.control.speech_slo import SpeechSLO

Outcome = Literal["ok", "refused", "expired", "error", "timeout"]
PERCENTILES = (50.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Sample:
    """One arrival; times are seconds from the start of the test. `sent` and `finished` are NaN where it never came to
    that.

    `level` is what the server says that it ran at, `score` the share of the answer that is right; None where unknown.
    Of a generation, `first_token` is seconds from when it was sent, and `token` the mean of each further one. Of a
    recording, `audio_seconds` is its length, by which an SLO of speech is longer.
    """

    scheduled: float
    sent: float
    finished: float
    outcome: Outcome
    level: float | None = None
    score: float | None = None
    first_token: float | None = None
    token: float | None = None
    audio_seconds: float = 0.0

    @property
    def latency(self) -> float:
        """Seconds from the scheduled time."""
        return self.finished - self.scheduled

    def met(self, slo: Objective) -> bool:
        if self.outcome != "ok" or not isinstance(slo, GenerationSLO):
            allowed = slo.latency_of(self.audio_seconds) if isinstance(slo, SpeechSLO) else slo.latency
            return self.outcome == "ok" and self.latency <= allowed
        first = self.until_first_token
        return first is not None and first <= slo.latency and (self.token is None or self.token <= slo.token)

    @property
    def until_first_token(self) -> float | None:
        """Seconds from the scheduled time."""
        return None if self.first_token is None else self.sent - self.scheduled + self.first_token


def summarise(trace: Trace, samples: Sequence[Sample], slo_at: Callable[[float], Objective]) -> dict[str, Any]:
    """The result as plain data: the totals, and the same for each phase. Latencies are milliseconds, shares 0 to 1.

    `late_send_ms` is from when a request was due until it was sent: a large one says that all connections were busy, or
    that the load generator itself was too slow.
    """
    phases: dict[str, list[Sample]] = {span.name: [] for span in trace.spans}
    names = trace.phase_of(np.array([sample.scheduled for sample in samples]))
    for name, sample in zip(names, samples, strict=True):
        phases[name].append(sample)
    sent = [sample.sent - sample.scheduled for sample in samples if not np.isnan(sample.sent)]
    return {
        "trace": trace.name,
        "seconds": trace.seconds,
        "rate": trace.rate,
        **figures(samples, slo_at),
        "late_send_ms": _percentiles(sent),
        "phases": {name: figures(own, slo_at) for name, own in phases.items()},
    }


def figures(samples: Sequence[Sample], slo_at: Callable[[float], Objective]) -> dict[str, Any]:
    """The numbers of some arrivals. Those that nothing is known for (no arrivals, no answers, no labels) are None."""
    served = [sample for sample in samples if sample.outcome == "ok"]
    met = sum(sample.met(slo_at(sample.scheduled)) for sample in samples)
    levels = [sample.level for sample in served if sample.level is not None]
    return {
        "arrivals": len(samples),
        "outcomes": dict(Counter(sample.outcome for sample in samples)),
        "attainment": met / len(samples) if samples else None,
        "quality": _mean(sample.score for sample in served),
        "level": _mean(levels),
        "median_level": float(np.median(levels)) if levels else None,
        "latency_ms": _percentiles([sample.latency for sample in served]),
        **_of_generations(served),
    }


def _of_generations(served: Sequence[Sample]) -> dict[str, Any]:
    """Nothing where none of them was one."""
    first = [seconds for sample in served if (seconds := sample.until_first_token) is not None]
    each = [sample.token for sample in served if sample.token is not None]
    return {"first_token_ms": _percentiles(first), "token_ms": _percentiles(each)} if first else {}


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {f"{percentile:g}": None for percentile in PERCENTILES}
    # Of the values that occurred, the least that so many are within: what an SLO's percentile means.
    values = np.percentile(np.asarray(seconds) * 1e3, PERCENTILES, method="inverted_cdf")
    return {f"{percentile:g}": float(value) for percentile, value in zip(PERCENTILES, values, strict=True)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
