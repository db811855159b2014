"""`sluice bench mlperf`: the highest Poisson rate at which MLPerf LoadGen's Server scenario is VALID, for this server
pinned dense and with its dial free.

LoadGen draws the arrivals, takes the times from when each query was due, and gives the verdict: 99 % within the target
latency, for long enough and often enough to be sure of it. Latency and quality floor are those of `sluice bench slo`.
Rates are searched with short runs, of which one in two has to be VALID where it is close, and what was found is
confirmed with a longer one, until that is VALID too. Neither server refuses: a query that is late is late. Then the
accuracy mode asks for every image once, at that rate.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.table import Table

from loadtest.benchmarks.contender import Calibration, Start, calibrate
from loadtest.benchmarks.mlperf_log import Verdict, read_accuracy, read_verdict
from loadtest.benchmarks.mlperf_search import Search
from loadtest.benchmarks.slo_plan import Floor, Mode, Plan, floor_below_dense, modes
from loadtest.driver import Address
from loadtest.processes import kept, on_cores, two_cores
from loadtest.report import number
from loadtest.slo_client import SloClient
from loadtest.workload import Images
from models.gating.profile import Profile
from models.zoo.fashion_data import LabelledImages
from service.control.slo import SLO

FIRST_SHARES = {"dense": 0.6, "sluice": 1.3}
"""The servers, and where each search begins, of the dense server's capacity: about where it is likely to end. A search
that begins far below may take a hiccup there for the end.
"""
_NEAR = 4.0
_CLIENT = "loadtest.benchmarks.mlperf_client"


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of the runs that search, and of the one that confirms (an official result takes 600).

    A run goes on until it has `least_queries`. LoadGen calls nothing VALID that it cannot be sure of, and of fewer
    queries a smaller share may be late: too few would put the slower server at a disadvantage.
    """

    search: float = 10.0
    confirm: float = 60.0
    calibration: float = 5.0
    least_queries: int = 6000

    @property
    def expected_minutes(self) -> float:
        """About: each server takes 9 to 15 runs of the search, two or so of confirming, and the accuracy mode."""
        return 2 * (12 * (1.5 * self.search + 1) + 2 * self.confirm + 20) / 60


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of LoadGen: its verdict, and what its client saw of the server (see `mlperf_client.ClientReport`)."""

    target_rate: float
    seconds: float
    verdict: Verdict
    client: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """A server's `best` confirmed run, all `trials` in order, and the accuracy mode's share of right answers."""

    server: str
    best: Trial
    trials: tuple[Trial, ...]
    accuracy: float
    accuracy_client: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both servers. `ratio` is of their rates, free to dense; `points` the accuracy that it costs."""

    calibration: Calibration
    slo: SLO
    floor: Floor
    dense: Result
    free: Result

    @property
    def ratio(self) -> float:
        return self.free.best.verdict.rate / self.dense.best.verdict.rate

    @property
    def points(self) -> float:
        return 100 * (self.dense.accuracy - self.free.accuracy)

    def as_dict(self) -> dict[str, Any]:
        return {
            "capacity": self.calibration.capacity,
            "service_ms": self.calibration.service_ms,
            "slo": self.slo.as_dict(),
            "floor": asdict(self.floor),
            "servers": [asdict(self.dense), asdict(self.free)],
            "ratio": self.ratio,
            "points": self.points,
        }


def compare(
    profile: Profile,
    data: LabelledImages,
    start: Start,
    durations: Durations | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Runs both; `say` hears of each run. Raises `ServerFailed`, `RuntimeError` where LoadGen or a server fails, or
    `ValueError` for a profile without accuracy."""
    durations, plan = durations or Durations(), Plan()
    floor = floor_below_dense(profile, plan.floor_points)
    cores = two_cores()
    with on_cores(cores.load if cores else None):
        say("Measuring the dense server's capacity")
        calibration = calibrate(start, Images(data, {"level": 0.0}), durations.calibration)
        slo = SLO(plan.slo_factor * calibration.service_ms, plan.percentile, floor.quality, shed=False)
        named = {mode.name: mode for mode in modes(slo, floor.level)}
        dense, free = (
            measure(named[name], data, start, durations, Search(share * calibration.capacity), say)
            for name, share in FIRST_SHARES.items()
        )
    return Comparison(calibration, slo, floor, dense, free)


def measure(
    mode: Mode, data: LabelledImages, start: Start, durations: Durations, search: Search, say: Callable[[str], None]
) -> Result:
    """The search, the confirmation and the accuracy mode against one server process."""
    trials: list[Trial] = []

    def tried(rate: float, seconds: float) -> Verdict:
        trial = loadgen.performance(rate, seconds)
        trials.append(trial)
        verdict, level = trial.verdict, number(trial.client["level"], ".2f")
        result = "VALID" if verdict.valid else f"INVALID ({', '.join(verdict.reasons)})"
        say(f"{mode.name}, run {len(trials)}: {rate:.0f}/s {result}, p99 {verdict.p99_ms:.1f} ms, level {level}")
        return verdict

    def found_valid(rate: float) -> bool:
        verdict = tried(rate, durations.search)
        # One hiccup of the machine must not end the search below what the server can do.
        near = verdict.p99_ms < _NEAR * mode.slo.latency_ms
        return verdict.valid or (near and tried(rate, durations.search).valid)

    with start() as address, bench(address, mode, data, durations.least_queries) as loadgen:
        found = search.highest(found_valid)
        # The longer run may allow a little more than the short ones did.
        rate = search.confirmed(search.precision * found, lambda rate: tried(rate, durations.confirm).valid)
        best = trials[-1]
        accuracy, client = loadgen.accuracy(rate)
        say(f"{mode.name}: accuracy {accuracy:.2%} of {len(data)} images at {rate:.0f}/s")
    return Result(mode.name, best, tuple(trials), accuracy, client)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs LoadGen against one server, in `folder`."""

    address: Address
    mode: Mode
    data: LabelledImages
    folder: Path
    least_queries: int

    def performance(self, rate: float, seconds: float) -> Trial:
        client = self._run(rate, seconds, accuracy=False)
        return Trial(rate, seconds, read_verdict(self.folder), client)

    def accuracy(self, rate: float) -> tuple[float, dict[str, Any]]:
        client = self._run(rate, 0.0, accuracy=True)
        return read_accuracy(self.folder, self.data.labels), client

    def _run(self, rate: float, seconds: float, accuracy: bool) -> dict[str, Any]:
        test = {
            "host": self.address.host,
            "port": self.address.port,
            "rate": rate,
            "seconds": seconds,
            "least_queries": self.least_queries,
            "latency_ms": self.mode.slo.latency_ms,
            "percentile": self.mode.slo.percentile,
            "accuracy": accuracy,
            "parameters": dict(self.mode.parameters),
        }
        (self.folder / "test.json").write_bytes(orjson.dumps(test))
        for old in (*self.folder.glob("mlperf_log_*"), self.folder / "client.json"):
            old.unlink(missing_ok=True)
        longest = 60 + 4 * max(seconds, self.least_queries / rate, len(self.data) / rate)
        with (self.folder / "log").open("w+b") as log:
            command = (sys.executable, "-m", _CLIENT, str(self.folder))
            with kept(command, log, os.environ) as process:
                try:
                    status = process.wait(longest)
                except subprocess.TimeoutExpired:
                    raise RuntimeError(f"LoadGen did not end within {longest:.0f} s") from None
        if status:
            raise RuntimeError(f"LoadGen's client failed:\n{(self.folder / 'log').read_text()[-1000:]}")
        report: dict[str, Any] = orjson.loads((self.folder / "client.json").read_bytes())
        return report


@contextmanager
def bench(address: Address, mode: Mode, data: LabelledImages, least_queries: int) -> Iterator[Bench]:
    """Tells the server its SLO, and gives LoadGen a folder until the block ends."""
    SloClient(f"http://{address}", "fashion").change(mode.slo.as_dict())
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", data.images)
        yield Bench(address, mode, data, Path(folder), least_queries)


def report_table(comparison: Comparison) -> Table:
    """A row for each server."""
    slo = comparison.slo
    table = Table(
        "server",
        *("queries/s", "p50 ms", "p99 ms", "p99 ms without client", "level", "accuracy", "runs", "unanswered"),
        title="MLPerf LoadGen, Server scenario: the highest rate that is VALID, "
        f"{slo.percentile:g} % within {slo.latency_ms:.1f} ms",
        caption=f"{comparison.ratio:.2f} × the dense rate, at {comparison.points:.2f} points of accuracy",
    )
    for result in (comparison.dense, comparison.free):
        best = result.best
        table.add_row(
            result.server,
            f"{best.verdict.rate:.0f}",
            f"{best.verdict.p50_ms:.2f}",
            f"{best.verdict.p99_ms:.2f}",
            number(best.client["server_p99_ms"], ".2f"),
            number(best.client["level"], ".3f"),
            f"{result.accuracy:.2%}",
            str(len(result.trials)),
            str(best.client["failed"] + result.accuracy_client["failed"]),
        )
    return table
