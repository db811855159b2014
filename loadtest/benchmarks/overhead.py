"""What the server itself costs: all of it around a model that does nothing, beside FastAPI with an empty handler.

The server has one core and `wrk` another. Besides the rate there is the processor time of a request, which tells the
same and does not shift when the machine does something else.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from loadtest.benchmarks.overhead_phases import METRICS, Phase, phases, scrape_seconds
from loadtest.benchmarks.overhead_server import INPUT_BYTES, PATH, SERVERS
from loadtest.driver import Address
from loadtest.processes import Cores, on_cores, server, two_cores

CONNECTIONS = (1, 32)
WARM_UP_SECONDS = 1.0
SCRAPE_EVERY = 5.0
"""Seconds, as in the Prometheus configuration that comes with Sluice."""
METRICS_ALLOWED = 0.02
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
    """The loads of each server by its name, the phases of a request of ours, and the processor time of a scrape."""

    loads: dict[str, list[Load]]
    phases: list[Phase]
    scrape_seconds: float

    @property
    def of_empty(self) -> float:
        """Our rate with the most connections over that of an empty handler in the same run."""
        return self.loads["sluice"][-1].rate / self.loads["empty"][-1].rate

    @property
    def request_seconds(self) -> float:
        """Processor time of a request of ours, with the most connections."""
        return self.loads["sluice"][-1].cpu_ms * 1e-3

    @property
    def metrics_share(self) -> float:
        """What the metrics take of a busy core: counting each request, and a scrape every `SCRAPE_EVERY`."""
        counting = next(phase.seconds for phase in self.phases if phase.name == METRICS)
        return counting / self.request_seconds + self.scrape_seconds / SCRAPE_EVERY

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"of_empty": self.of_empty, "metrics_share": self.metrics_share}


def measure(seconds: float, say: Callable[[str], None]) -> Overhead:
    """Runs each server in turn, a load of `seconds` for each number of connections.

    Raises `WrkMissing`, `RuntimeError` where there are no two cores, and `ServerFailed`.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkMissing("this benchmark loads the server with wrk, which is not installed: apt-get install wrk")
    cores = two_cores()
    if cores is None:
        raise RuntimeError("this benchmark needs two cores: one for the server, one for the load")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT)
        loads = {}
        for name in SERVERS:
            say(f"{name} …")
            loads[name] = _loads(name, cores, [wrk, "--script", str(script)], seconds)
    say("phases …")
    with on_cores(cores.server), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parts = runner.run(phases(_JSON.encode() + bytes(INPUT_BYTES), str(len(_JSON))))
        scrape = runner.run(scrape_seconds())
    return Overhead(loads, parts, scrape)


def _loads(name: str, cores: Cores, wrk: list[str], seconds: float) -> list[Load]:
    with tempfile.TemporaryDirectory() as folder:
        # The process that `server` starts keeps another, which is the server.
        number = Path(folder) / "pid"
        command = (sys.executable, "-m", "loadtest.benchmarks.overhead_server", name, "{port}", str(number))
        with server(command, "/openapi.json", cores.server) as address:
            process = int(number.read_text())
            _wrk(wrk, cores, address, max(CONNECTIONS), WARM_UP_SECONDS)
            return [_load(process, wrk, cores, address, connections, seconds) for connections in CONNECTIONS]


def _load(process: int, wrk: list[str], cores: Cores, address: Address, connections: int, seconds: float) -> Load:
    before = cpu_seconds(process)
    requests, micros, p50, p99, failed = _wrk(wrk, cores, address, connections, seconds)
    spent = cpu_seconds(process) - before
    return Load(connections, requests / micros * 1e6, p50 / 1e3, p99 / 1e3, spent / requests * 1e3, failed)


def _wrk(wrk: list[str], cores: Cores, address: Address, connections: int, seconds: float) -> tuple[int, ...]:
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
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
