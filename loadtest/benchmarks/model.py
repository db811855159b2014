"""`sluice bench model`: a hosted model beside the engines that a user would pick instead, on one thread.

One run, the same inputs, in turns, medians. Before anything is timed, dense outputs must agree with every engine's.
"""

import json as json_format
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from loadtest.benchmarks.model_cases import Case, cases_of
from models import kernels
from models.gating.agreement import spearman

MIN_COSINE = {"fp32": 0.9999, "bf16": 0.995, "int8": 0.9}
"""How close an engine's output must be to our dense fp32 one, at each datatype."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: its time, see `_times`, and how close its outputs are to our dense fp32 ones.

    `macs_ratio` is multiply-accumulates done / dense; `peak_mib` what a process grew by that loads it and runs it once;
    `spearman` the rank correlation of how alike each two outputs are, where it was measured.
    """

    contender: str
    seconds: float
    macs_ratio: float
    cosine: float
    peak_mib: float | None = None
    level: float | None = None
    spearman: float | None = None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One size at one datatype."""

    size: str
    datatype: str
    macs: int
    rows: list[Row] = field(default_factory=list)
    rate: str = ""

    @property
    def dense(self) -> Row:
        return self.rows[0]

    @property
    def peers(self) -> list[Row]:
        return [row for row in self.rows[1:] if row.level is None]

    @property
    def levels(self) -> list[Row]:
        return [row for row in self.rows if row.level is not None]

    @property
    def overhead(self) -> float:
        """Seconds that a level takes, on average, beyond its share of the dense time; 0 where that is less."""
        beyond = [row.seconds - row.macs_ratio * self.dense.seconds for row in self.levels]
        return max(0.0, fmean(beyond)) if beyond else 0.0

    def of_predicted(self, row: Row) -> float:
        """The time of a level / overhead + (1 − MACs skipped) · dense: 1 where the dial saves what it says."""
        return row.seconds / (self.overhead + row.macs_ratio * self.dense.seconds)

    def gflops(self, row: Row) -> float:
        """Arithmetic done a second; a multiply-accumulate is two operations."""
        return 2e-9 * self.macs * row.macs_ratio / row.seconds

    def as_dict(self) -> dict[str, Any]:
        rows = [
            asdict(row)
            | {
                "gflops": self.gflops(row),
                "of_dense": row.seconds / self.dense.seconds,
                "of_predicted": None if row.level is None else self.of_predicted(row),
                "speedup_over": {peer.contender: peer.seconds / row.seconds for peer in self.peers},
            }
            for row in self.rows
        ]
        return {
            "size": self.size,
            "datatype": self.datatype,
            "macs": self.macs,
            "overhead_seconds": self.overhead,
            "rows": rows,
        }


def compare(
    model: str,
    engines: Sequence[str],
    datatypes: Sequence[str],
    sizes: Sequence[int],
    levels: Sequence[float],
    seconds: float,
    say: Callable[[str], None],
) -> list[CaseResult]:
    """Measures every size at every datatype, about `seconds` each. Raises `ModuleNotFoundError` for an engine that is
    not installed, `ValueError` where one does not agree with us."""
    results = []
    for case in cases_of(model, engines, datatypes, sizes, levels):
        say(f"{model}, {case.size}, {case.datatype}: {', '.join(run.name for run in case.runs)}")
        outputs = {run.name: [run.call(x) for x in case.inputs] for run in case.runs}
        cosines = {name: _cosine(found, case.wanted) for name, found in outputs.items()}
        for run in case.runs:
            if run.level is None and cosines[run.name] < MIN_COSINE[case.datatype]:
                raise ValueError(
                    f"{case.size}, {case.datatype}: {run.name} does not agree with our dense fp32 outputs: "
                    f"cosine {cosines[run.name]:.5f}"
                )
        times = _times(case, seconds)
        result = CaseResult(case.size, case.datatype, case.macs, rate=case.rate)
        for run in case.runs:
            memory = None if case.ranked or run.level is not None else _peak_mib(model, run.name, case)
            ratio = 1.0 if run.macs_ratio is None else run.macs_ratio()
            ranks = _rank_correlation(outputs[run.name], case.wanted) if case.ranked else None
            result.rows.append(Row(run.name, times[run.name], ratio, cosines[run.name], memory, run.level, ranks))
        results.append(result)
    return results


def _cosine(outputs: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """The mean over the inputs of the cosine to our dense fp32 outputs."""
    return float(np.mean([_cosine_of(one, other) for one, other in zip(outputs, wanted, strict=True)]))


def _rank_correlation(outputs: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """Spearman's, of how alike each two outputs are, with how alike they are of our dense fp32 model."""
    found, dense = (
        np.array([_cosine_of(one, other) for one, other in combinations(some, 2)]) for some in (outputs, wanted)
    )
    return spearman(found, dense)


def _cosine_of(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _times(case: Case, seconds: float) -> dict[str, float]:
    """Seconds of each contender: the median of each input, and the mean of those, as of the work done, for gates leave
    more of one input than of another. They take turns, so that a change of the machine's speed meets all of them, in an
    order that changes, since what ran before has its own weights in the larger caches."""
    random = np.random.default_rng(0)
    times: dict[str, list[list[float]]] = {run.name: [[] for _ in case.inputs] for run in case.runs}
    begun, turn = perf_counter(), 0
    while turn < 2 * len(case.inputs) or perf_counter() - begun < seconds:
        x = case.inputs[turn % len(case.inputs)]
        for i in random.permutation(len(case.runs)):
            run = case.runs[i]
            run.call(x)  # what ran before has left its own data in the nearest caches
            start = perf_counter()
            run.call(x)
            times[run.name][turn % len(case.inputs)].append(perf_counter() - start)
        turn += 1
    return {name: fmean(map(median, taken)) for name, taken in times.items()}


def _peak_mib(model: str, contender: str, case: Case) -> float | None:
    """Peak resident memory of a process of its own that loads this contender and runs it once, less that of one that
    stops before; MiB."""
    arguments = [sys.executable, "-m", "loadtest.benchmarks.model", model, contender, case.datatype, str(case.number)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def _measure_memory(model: str, contender: str, datatype: str, number: int) -> float:
    before = _resident_mib()
    engines = [] if contender == "sluice" else [contender]
    (case,) = cases_of(model, engines, [datatype], [number], [], checked=False)
    run = next(run for run in case.runs if run.name == contender)
    run.call(case.inputs[0])
    return _resident_mib() - before


def _resident_mib() -> float:
    """The most that this process had in memory. What getrusage says includes, on Linux, its parent before the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def report_table(result: CaseResult) -> Table:
    """One size at one datatype, a row a contender."""
    peers = [peer.contender for peer in result.peers]
    title = f"{result.size}, {result.datatype}, one thread, {kernels.instruction_set()}: {result.macs / 1e6:.0f} M MACs"
    table = Table(title=title)
    table.add_column("")
    ranked = result.dense.spearman is not None
    columns = (
        "ms",
        *([result.rate] if result.rate else []),
        "of dense",
        "MACs done",
        *(["of predicted"] if result.levels else []),
        "GFLOP/s",
        "cosine",
        *(["Spearman"] if ranked else ["peak MiB"]),
        *(f"× {peer}" for peer in peers),
    )
    for column in columns:
        table.add_column(column, justify="right")
    for row in result.rows:
        table.add_row(
            row.contender if row.level is None else f"  level {row.level:g}",
            f"{row.seconds * 1e3:.3f}",
            *([f"{1 / row.seconds:.1f}"] if result.rate else []),
            f"{row.seconds / result.dense.seconds:.3f}",
            f"{row.macs_ratio:.3f}",
            *(["" if row.level is None else f"{result.of_predicted(row):.2f}"] if result.levels else []),
            f"{result.gflops(row):.0f}",
            f"{row.cosine:.4f}",
            _filled(row.spearman, ".4f") if ranked else _filled(row.peak_mib, ".0f"),
            *(f"{peer.seconds / row.seconds:.2f}" for peer in result.peers),
        )
    return table


def _filled(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def report(results: Sequence[CaseResult], console: Console) -> None:
    """Prints every table, and what their columns mean."""
    for result in results:
        console.print(report_table(result))
    console.print(
        "cosine: to our dense fp32 outputs. Spearman: of how alike each two outputs are, as ranked by those. "
        "peak: what a process grew by that loaded the weights and ran once. "
        "× an engine: how many times faster than it. of predicted: time / (overhead + MACs done · dense), with one "
        "overhead for all levels.",
        highlight=False,
    )


def plot(results: Sequence[CaseResult], path: str) -> None:
    """Draws time against cosine: our levels as a curve, each engine as a point. Raises `ModuleNotFoundError` without
    matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = list(dict.fromkeys(result.size for result in results))
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(5 * len(sizes), 4), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        for colour, result in enumerate(result for result in results if result.size == size):
            levels = [result.dense, *(row for row in result.rows if row.level is not None)]
            style = {"color": f"C{colour}"}
            times = [row.seconds * 1e3 for row in levels]
            axis.plot(times, [row.cosine for row in levels], "o-", label=f"Sluice {result.datatype}", **style)
            for marker, peer in zip("sD^v", result.peers, strict=False):
                label = f"{peer.contender} {result.datatype}"
                axis.plot([peer.seconds * 1e3], [peer.cosine], marker, label=label, **style)
        axis.set(title=size, xlabel="ms", ylabel="cosine to dense fp32", xlim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def as_json(model: str, results: Sequence[CaseResult]) -> str:
    """Everything that was measured."""
    content = {
        "model": model,
        "backend": kernels.BACKEND,
        "instruction_set": kernels.instruction_set(),
        "cases": [result.as_dict() for result in results],
    }
    return json_format.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    _model, _contender, _datatype, _number = sys.argv[1:]
    print(_measure_memory(_model, _contender, _datatype, int(_number)))
