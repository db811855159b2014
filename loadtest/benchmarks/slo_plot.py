"""The plot of `sluice bench slo`: arrivals, latency and level over time. Needs matplotlib (the extra `loadtest`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from loadtest.benchmarks.slo_series import BIN_SECONDS


def plot(comparison: dict[str, Any], path: Path) -> None:
    """Draws what `compare` returned, a column for each overload; the ending of `path` names the format."""
    overloads = comparison["plan"]["overloads"]
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
        runs = [run for run in comparison["runs"] if run["overload"] == overload and "failed" not in run]
        if runs:
            _draw(column, comparison, runs)
    handles, names = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw(axes: Any, comparison: dict[str, Any], runs: Sequence[dict[str, Any]]) -> None:
    arrivals, latency, level = axes
    first = runs[0]["series"]
    rates = np.array(first["arrivals"]) / BIN_SECONDS
    arrivals.bar(first["seconds"], rates, width=BIN_SECONDS, color="0.75")
    arrivals.axhline(comparison["capacity"], color="black", linestyle=":", label="dense capacity")
    arrivals.set(title=runs[0]["trace"], ylabel="arrivals / s")
    arrivals.legend(loc="upper right", frameon=False)
    for number, run in enumerate(runs):
        own, color = run["series"], f"C{number}"
        latency.plot(own["seconds"], _known(own["p99_ms"]), label=run["server"], color=color, linewidth=1.2)
        if run["level"] is not None:
            name = f"{run['server']} ({run['attainment']:.1%} within the SLO)"
            level.plot(own["seconds"], _known(own["level"]), label=name, color=color, linewidth=1.2)
    latency.axhline(comparison["slo"]["latency_ms"], color="black", linestyle="--", linewidth=0.8)
    latency.set(yscale="log", ylabel="p99 latency of the served, ms")
    # Room above the curves, so that the legend covers none of them.
    level.legend(loc="upper center", fontsize="small", ncols=2, frameon=False)
    level.set(ylabel="level, median", xlabel="seconds", ylim=(-0.05, 1.5), yticks=[0, 0.5, 1])


def _known(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]
