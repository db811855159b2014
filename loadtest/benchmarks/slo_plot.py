"""The plot of `sluice bench slo`: arrivals, latency and level over time. Needs matplotlib (the extra `loadtest`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks.slo import Comparison, Run

_BIN_SECONDS = 0.5


def plot(comparison: Comparison, path: Path) -> None:
    """Draws a column for each overload; the ending of `path` names the format."""
    overloads = list(comparison.bounds)
    figure, axes = plt.subplots(
        3,
        len(overloads),
        figsize=(6.5 * len(overloads), 7),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, overload in zip(axes.T, overloads, strict=True):
        _draw(column, comparison, [run for run in comparison.runs if run.overload == overload])
    handles, names = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3 * len(overloads), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def percentile_over_time(
    times: Sequence[float], values: Sequence[float], seconds: float, percentile: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The middles of bins of half a second, and the percentile of the values in each; NaN in those without any."""
    edges = np.arange(0, seconds + _BIN_SECONDS, _BIN_SECONDS)
    bins = np.digitize(times, edges) - 1
    own = np.asarray(values)
    result = [np.percentile(own[bins == at], percentile) if (bins == at).any() else np.nan for at in range(len(edges))]
    return edges + _BIN_SECONDS / 2, np.array(result)


def _draw(axes: Any, comparison: Comparison, runs: Sequence[Run]) -> None:
    arrivals, latency, level = axes
    trace = runs[0].trace
    arrivals.hist(trace.times, bins=np.arange(0, trace.seconds + 1, 1.0), color="0.75")
    arrivals.axhline(comparison.calibration.capacity, color="black", linestyle=":", label="dense capacity")
    arrivals.set(title=trace.name, ylabel="arrivals / s")
    arrivals.legend(loc="upper right", frameon=False)
    for run in runs:
        served = [sample for sample in run.samples if sample.outcome == "ok"]
        due = [sample.scheduled for sample in served]
        name = f"{run.contender} ({run.summary['attainment']:.1%} within the SLO)"
        latency.plot(
            *percentile_over_time(due, [1e3 * sample.latency for sample in served], trace.seconds, 99),
            label=run.contender,
            linewidth=1.2,
        )
        known = [(sample.scheduled, sample.level) for sample in served if sample.level is not None]
        if known:
            level.plot(
                *percentile_over_time([at for at, _ in known], [value for _, value in known], trace.seconds, 50),
                label=name,
                linewidth=1.2,
            )
    latency.axhline(comparison.slo.latency_ms, color="black", linestyle="--", linewidth=0.8)
    latency.set(yscale="log", ylabel="p99 latency of the served, ms")
    level.legend(loc="upper right", fontsize="small")
    level.set(ylabel="level, median", xlabel="seconds", ylim=(-0.05, 1.05))
