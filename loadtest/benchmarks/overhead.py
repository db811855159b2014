"""What the server itself costs: all of it around a model that does nothing, beside FastAPI with an empty handler.

The servers have one core, in turns, and `wrk` another. Besides the rate there is the processor time of a request, which
tells the same and does not shift when the machine does something else.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.benchmarks.overhead_phases import METRICS, Phase, phases
from loadtest.benchmarks.overhead_server import INPUT_BYTES, PATH, SERVERS
from loadtest.driver import Address
from loadtest.processes import Cores, on_cores, server, two_cores

OURS, EMPTY = "sluice", "empty"
CONNECTIONS = (1, 32)
SCRAPE_EVERY = 5.0
"""Seconds, as in the Prometheus configuration that comes with Sluice."""
CONSOLE_EVERY = 1.0
METRICS_ALLOWED = 0.02
CALLS = 400
_JSON = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "datatype": "UINT8",
                "shape": [1, INPUT_BYTES],
                "parameters": {"binary_data_size": INPUT_BYTES},
            }
        ]
    },
    separators=(",", ":"),
)
_SCRIPT = f"""
wrk.method = "POST"
wrk.headers["Inference-Header-Content-Length"] = "{len(_JSON)}"
wrk.body = '{_JSON}' .. string.rep("\\0", {INPUT_BYTES})
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("result %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class WrkMissing(RuntimeError):
    """`wrk` is not installed; the message says how to."""


@dataclass(frozen=True, slots=True)
class Load:
    """What `wrk` saw with so many connections; `cpu_ms` is the server's processor time for a request."""

    connections: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Overhead:
    """The loads of each server by its name; `of_empty`, our rate with the most connections over that of an empty
    handler, the median of the turns; the phases of a request of ours; and the processor time that our server takes for
    a scrape of its metrics, and for a look of an open console.
    """

    loads: dict[str, list[Load]]
    of_empty: float
    phases: list[Phase]
    scrape_seconds: float
    console_seconds: float

    @property
    def request_seconds(self) -> float:
        """Processor time of a request of ours, with the most connections."""
        return self.loads[OURS][-1].cpu_ms * 1e-3

    @property
    def metrics_share(self) -> float:
        """What the metrics take of a busy core: counting each request, and a scrape every `SCRAPE_EVERY`."""
        counting = next(phase.seconds for phase in self.phases if phase.name == METRICS)
        return counting / self.request_seconds + self.scrape_seconds / SCRAPE_EVERY

    @property
    def console_share(self) -> float:
        """What one console that somebody looks at takes of a core; a hidden one asks nothing."""
        return self.console_seconds / CONSOLE_EVERY

    def as_dict(self) -> dict[str, Any]:
        shares = {"metrics_share": self.metrics_share, "console_share": self.console_share}
        return asdict(self) | shares


def measure(seconds: float, say: Callable[[str], None]) -> Overhead:
    """Loads all servers in turns of a second, `seconds` of them for each number of connections: a machine that is
    slower for a while is so for all of them. A load is the medians of its turns.

    Raises `WrkMissing`, `RuntimeError` where there are no two cores, and `ServerFailed`.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkMissing("this benchmark loads the server with wrk, which is not installed: apt-get install wrk")
    cores = two_cores()
    if cores is None:
        raise RuntimeError("this benchmark needs two cores: one for the server, one for the load")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT)
        post = [wrk, "--script", str(script)]
        say("starting …")
        running = {name: stack.enter_context(_running(name, cores)) for name in SERVERS}
        for _, address in running.values():
            _wrk(post, cores, address, max(CONNECTIONS))
        turns: dict[str, list[list[Load]]] = {name: [] for name in SERVERS}
        for turn in range(1, round(seconds) + 1):
            say(f"turn {turn} of {seconds:.0f} …")
            for name, (process, address) in running.items():
                turns[name].append([_load(process, post, cores, address, count) for count in CONNECTIONS])
        scrape = _call_seconds(*running[OURS], "/metrics")
        look = _call_seconds(*running[OURS], "/console/state/nothing")
    say("phases …")
    with on_cores(cores.server), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parts = runner.run(phases(_JSON.encode() + bytes(INPUT_BYTES), str(len(_JSON))))
    of_empty = median(ours[-1].rate / empty[-1].rate for ours, empty in zip(turns[OURS], turns[EMPTY], strict=True))
    loads = {name: [_median(same) for same in zip(*of, strict=True)] for name, of in turns.items()}
    return Overhead(loads, of_empty, parts, scrape, look)


def _median(turns: Sequence[Load]) -> Load:
    rate, p50, p99, cpu = (
        median(getattr(turn, name) for turn in turns) for name in ("rate", "p50_ms", "p99_ms", "cpu_ms")
    )
    return Load(turns[0].connections, rate, p50, p99, cpu, sum(turn.failed for turn in turns))


@contextmanager
def _running(name: str, cores: Cores) -> Iterator[tuple[int, Address]]:
    """The process and the address of a server."""
    with tempfile.TemporaryDirectory() as folder:
        # The process that `server` starts keeps another, which is the server.
        number = Path(folder) / "pid"
        command = (sys.executable, "-m", "loadtest.benchmarks.overhead_server", name, "{port}", str(number))
        with server(command, "/openapi.json", cores.server) as address:
            yield int(number.read_text()), address


def _call_seconds(process: int, address: Address, path: str) -> float:
    """The server's processor time for one GET, on a connection that is open already."""
    with httpx.Client(base_url=f"http://{address}") as client:
        client.get(path).raise_for_status()
        before = cpu_seconds(process)
        for _ in range(CALLS):
            client.get(path)
        return (cpu_seconds(process) - before) / CALLS


def _load(process: int, wrk: list[str], cores: Cores, address: Address, connections: int) -> Load:
    before = cpu_seconds(process)
    requests, micros, p50, p99, failed = _wrk(wrk, cores, address, connections)
    spent = cpu_seconds(process) - before
    return Load(connections, requests / micros * 1e6, p50 / 1e3, p99 / 1e3, spent / requests * 1e3, failed)


def _wrk(wrk: list[str], cores: Cores, address: Address, connections: int) -> tuple[int, ...]:
    options = ["--threads", "1", "--connections", str(connections), "--duration", "1s"]
    with on_cores(cores.load):
        output = subprocess.run(
            [*wrk, *options, f"http://{address}{PATH}"], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"^result ([\d ]+)$", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    return tuple(map(int, found.group(1).split()))


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used, in user and in system, as Linux counts it (proc_pid_stat(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(overhead: Overhead, console: Console) -> None:
    """Both tables."""
    table = Table(
        *("server", "clients", "requests/s", "p50 ms", "p99 ms", "CPU ms", "failed"),
        caption="clients: open connections; CPU ms: the server's processor time for a request",
    )
    for name, loads in overhead.loads.items():
        for load in loads:
            table.add_row(
                name,
                str(load.connections),
                f"{load.rate:,.0f}",
                f"{load.p50_ms:.3f}",
                f"{load.p99_ms:.3f}",
                f"{load.cpu_ms:.3f}",
                str(load.failed),
            )
    console.print(table)
    console.print(f"{overhead.of_empty:.0%} of the empty handler's rate with {CONNECTIONS[-1]} connections")
    busy = overhead.request_seconds
    rest = busy - sum(phase.seconds for phase in overhead.phases)
    spent = Table("phase", "µs", "share", title="Where a request's processor time goes")
    for phase in (*overhead.phases, Phase("HTTP: the sockets, uvicorn, routing, the event loop", rest)):
        spent.add_row(phase.name, f"{phase.seconds * 1e6:.1f}", f"{phase.seconds / busy:.0%}")
    spent.add_row("all", f"{busy * 1e6:.1f}", "100%", style="bold")
    console.print(spent)
    verdict = "within" if overhead.metrics_share <= METRICS_ALLOWED else "OVER"
    console.print(
        f"metrics take {overhead.metrics_share:.2%} of a busy core, {verdict} the {METRICS_ALLOWED:.0%} that they may: "
        f"counting each request, and a scrape of {overhead.scrape_seconds * 1e3:.1f} ms every {SCRAPE_EVERY:g} s"
    )
    console.print(f"a console that is looked at takes {overhead.console_share:.2%} of a core, a hidden one nothing")
