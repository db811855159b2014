"""`sluice bench slo`: the same network under the same bursts, with its dial free, pinned dense, dense with admission
control, always at the quality floor, and behind other servers.

The server has one core and the load another. First the dense server's capacity is measured; the load, the bursts and
the SLO are multiples of it. Every arrival counts, by the clock of the client, from when it was due.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from rich.console import Console

from loadtest.benchmarks.slo_plan import Floor, Mode, Plan, after_bursts, capacity_share, floor_below_dense, modes
from loadtest.benchmarks.slo_report import report_tables
from loadtest.driver import Address, DriverSettings, replay
from loadtest.processes import ServerFailed, on_cores, server, two_cores
from loadtest.saturation import saturate
from loadtest.slo_client import SloClient
from loadtest.summary import Sample, figures, summarise
from loadtest.trace import Trace
from loadtest.workload import Images, Workload
from models.gating.profile import Profile
from models.zoo.fashion_data import LabelledImages
from service.control.slo import SLO

SERVE = (
    *(sys.executable, "-c", "from service.cli import main; main()", "serve"),
    *("--port", "{port}", "--executors", "1", "--log-level", "warning"),
)
READY = "/v2/health/ready"
_CONNECTIONS = 1024
_PARALLEL = 4

Start = Callable[[], AbstractContextManager[Address]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server in the comparison: how it is started, what is sent to it, and the SLO that it is told, if any."""

    name: str
    start: Start
    workload: Workload
    slo: SLO | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The dense server: requests per second at most, and the median milliseconds of one alone on it."""

    capacity: float
    service_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """One server under one trace."""

    contender: str
    overload: float
    trace: Trace
    samples: list[Sample]
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it."""

    plan: Plan
    calibration: Calibration
    slo: SLO
    floor: Floor
    bounds: dict[float, float]
    """By overload, the share of arrivals that the dense server's capacity allows."""
    runs: tuple[Run, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "plan": asdict(self.plan),
            "capacity": self.calibration.capacity,
            "service_ms": self.calibration.service_ms,
            "slo": self.slo.as_dict(),
            "floor": asdict(self.floor),
            "capacity_share": {f"{overload:g}": share for overload, share in self.bounds.items()},
            "runs": [{"server": run.contender, "overload": run.overload, **run.summary} for run in self.runs],
        }


def compare(
    plan: Plan,
    profile: Profile,
    data: LabelledImages,
    start: Start,
    peers: Sequence[Contender] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Runs everything, `say` hears of the progress. `start` starts this server, with the model that `profile` is of.

    The load has a core to itself where there are two. Raises `ServerFailed`, `RuntimeError` for a server that does not
    serve, or `ValueError` for a profile without accuracy.
    """
    floor = floor_below_dense(profile, plan.floor_points)
    cores = two_cores()
    with on_cores(cores.load if cores else None):
        say("Measuring the dense server's capacity")
        calibration = calibrate(start, Images(data, {"level": 0.0}), plan.calibration_seconds)
        ours = modes(plan.slo_factor * calibration.service_ms, floor)
        contenders = [*(_contender(mode, start, data) for mode in ours), *peers]
        runs = []
        for overload in plan.overloads:
            trace = plan.trace(calibration.capacity, overload)
            for contender in contenders:
                say(f"{trace.name}: {contender.name}, {trace.seconds:g} s")
                runs.append(run(contender, overload, trace, ours[0].slo, plan.warm_up_seconds))
    bounds = {o: capacity_share(plan.curve(calibration.capacity, o), calibration.capacity) for o in plan.overloads}
    return Comparison(plan, calibration, ours[0].slo, floor, bounds, tuple(runs))


def sluice() -> Start:
    """Starts this server with one executor, on the core that servers get. Raises `ServerFailed` where there is one."""
    cores = two_cores()
    if cores is None:
        raise ServerFailed("the server and the load each need a core, and this process may use only one")
    return partial(server, SERVE, READY, cores.server)


def calibrate(start: Start, dense: Workload, seconds: float) -> Calibration:
    """Measures the dense server, with an SLO so wide that it refuses nothing."""
    with start() as address:
        SloClient(f"http://{address}", dense.model).change({"latency_ms": 60_000, "shed": False})
        alone = asyncio.run(saturate(address, dense, 1, seconds))
        loaded = asyncio.run(saturate(address, dense, _PARALLEL, seconds))
    return Calibration(loaded.rate, 1e3 * median(alone.latencies))


def run(contender: Contender, overload: float, trace: Trace, slo: SLO, warm_up_seconds: float) -> Run:
    """One server under one trace, in a process that did nothing before but warm up; judged by `slo`."""
    settings = DriverSettings(connections=_CONNECTIONS, spin=True)
    with contender.start() as address:
        if contender.slo is not None:
            client = SloClient(f"http://{address}", contender.workload.model)
            client.change(replace(contender.slo, latency_ms=60_000.0, shed=False).as_dict())
            asyncio.run(saturate(address, contender.workload, 1, warm_up_seconds))
            client.change(contender.slo.as_dict())
        else:
            asyncio.run(saturate(address, contender.workload, 1, warm_up_seconds))
        samples = asyncio.run(replay(address, trace, contender.workload, settings))
    summary = summarise(trace, samples, lambda _: slo)
    summary["after_bursts"] = figures(after_bursts(trace, samples), lambda _: slo)
    return Run(contender.name, overload, trace, samples, summary)


def show(comparison: Comparison, console: Console) -> None:
    """Prints the tables."""
    for table in report_tables(comparison.as_dict()):
        console.print(table)


def _contender(mode: Mode, start: Start, data: LabelledImages) -> Contender:
    return Contender(mode.name, start, Images(data, mode.parameters), mode.slo)
