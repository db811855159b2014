"""A run over time, in bins of half a second: what the plot shows and a result keeps."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.summary import Sample
from loadtest.trace import Trace

BIN_SECONDS = 0.5


def series(trace: Trace, samples: Iterable[Sample]) -> dict[str, Any]:
    """For each bin its middle in seconds, the arrivals, and of those served the 99th percentile of latency in ms and
    the median level; None in bins without any."""
    edges = np.arange(0, trace.seconds + BIN_SECONDS, BIN_SECONDS)
    served = [sample for sample in samples if sample.outcome == "ok"]
    levels = [(sample.scheduled, sample.level) for sample in served if sample.level is not None]
    latencies = [(sample.scheduled, 1e3 * sample.latency) for sample in served]
    return {
        "seconds": (edges[:-1] + BIN_SECONDS / 2).tolist(),
        "arrivals": np.histogram(trace.times, edges)[0].tolist(),
        "p99_ms": _percentiles(latencies, edges, 99),
        "level": _percentiles(levels, edges, 50),
    }


def _percentiles(
    points: list[tuple[float, float]], edges: NDArray[np.float64], percentile: float
) -> list[float | None]:
    if not points:
        return [None] * (len(edges) - 1)
    times, values = np.array(points).T
    bins = np.digitize(times, edges) - 1
    own = (values[bins == at] for at in range(len(edges) - 1))
    return [float(np.percentile(inside, percentile)) if len(inside) else None for inside in own]
