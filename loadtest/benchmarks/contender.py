"""What a benchmark compares: servers that it starts, each with a core of its own."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import median

from loadtest.driver import Address
from loadtest.processes import ServerFailed, server, two_cores
from loadtest.saturation import saturate
from loadtest.slo_client import SloClient
from loadtest.workload import Workload
from service.control.slo import SLO

SERVE = (
    *(sys.executable, "-c", "from service.cli import main; main()", "serve"),
    *("--port", "{port}", "--executors", "1", "--log-level", "warning"),
)
READY = "/v2/health/ready"
_WIDE = {"latency_ms": 60_000.0, "shed": False}
"""Changes of an SLO after which nothing is refused or late."""
_PARALLEL = 4

Say = Callable[[str], None]
Start = Callable[[], AbstractContextManager[Address]]


def _nothing(_: Say) -> None: ...


@dataclass(frozen=True, slots=True)
class Contender:
    """A server in the comparison: how it is started, what is sent to it, and the SLO that it is told, if any.

    `prepare` gets ready what takes long and must not be measured. Both it and `start` raise `ServerFailed`.
    """

    name: str
    start: Start
    workload: Workload
    slo: SLO | None = None
    prepare: Callable[[Say], object] = _nothing

    def warm_up(self, address: Address, seconds: float) -> float:
        """Requests one after the other, before the server is told its SLO; the median of their milliseconds."""
        client = SloClient(f"http://{address}", self.workload.model)
        if self.slo is not None:
            client.change(self.slo.patched(_WIDE).as_dict())
        alone = asyncio.run(saturate(address, self.workload, 1, seconds))
        if self.slo is not None:
            client.change(self.slo.as_dict())
        return 1e3 * median(alone.latencies)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The dense server: requests per second at most, and the median milliseconds of one alone on it."""

    capacity: float
    service_ms: float


def sluice(model: str = "fashion") -> Start:
    """Starts this server with a model and one executor, on the core that servers get. Raises `ServerFailed` where there
    is one."""
    cores = two_cores()
    if cores is None:
        raise ServerFailed("the server and the load each need a core, and this process may use only one")
    return partial(server, (*SERVE, "--model", model), READY, cores.server)


def calibrate(start: Start, dense: Workload, seconds: float) -> Calibration:
    """Measures the dense server, with an SLO so wide that it refuses nothing."""
    with start() as address:
        SloClient(f"http://{address}", dense.model).change(_WIDE)
        alone = asyncio.run(saturate(address, dense, 1, seconds))
        loaded = asyncio.run(saturate(address, dense, _PARALLEL, seconds))
    return Calibration(loaded.rate, 1e3 * median(alone.latencies))
