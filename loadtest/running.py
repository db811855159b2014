"""A load test in progress, for clients that take arrivals one by one: what is due next, what was found."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.script import Script
from loadtest.summary import Sample, summarise
from loadtest.trace import Trace
from loadtest.workload import Post, Reply, Workload, judged_sample


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival's number and when it is due, in seconds from the start."""

    number: int
    due: float


class Running:
    """Starts `delay` seconds after it is made. Not for several threads; greenlets may share it."""

    def __init__(
        self,
        trace: Trace,
        workload: Workload,
        script: Script,
        delay: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trace, self._workload, self._script, self._clock = trace, workload, script, clock
        self._next = 0
        self._samples: dict[int, Sample] = {}
        self._start = clock() + delay

    def now(self) -> float:
        """Seconds from the start, below 0 before it."""
        return self._clock() - self._start

    @property
    def over(self) -> bool:
        """Every arrival has come to its end."""
        return len(self._samples) == len(self._trace.times)

    def take(self) -> Arrival | None:
        """The next arrival, which the caller sends when it is due; None when all are taken."""
        if self._next == len(self._trace.times):
            return None
        arrival = Arrival(self._next, float(self._trace.times[self._next]))
        self._next += 1
        return arrival

    def post(self, arrival: Arrival) -> Post:
        return self._workload.posts[arrival.number % len(self._workload.posts)]

    def record(self, arrival: Arrival, sent: float, reply: Reply) -> Sample:
        """Judges a reply that is here now; status 0 says that there was none."""
        judged = self._workload.judge(arrival.number % len(self._workload.posts), reply)
        sample = judged_sample(arrival.due, sent, self.now(), judged)
        self._samples[arrival.number] = sample
        return sample

    def summary(self) -> dict[str, Any]:
        """The result so far. Arrivals that were due and have no end yet count as timeouts."""
        now = self.now()
        samples = [
            self._samples.get(number, Sample(due, math.nan, math.nan, "timeout"))
            for number, due in enumerate(self._trace.times.tolist())
            if due <= now
        ]
        return {"slo": self._script.slo.as_dict(), **summarise(self._trace, samples, self._script.at)}
