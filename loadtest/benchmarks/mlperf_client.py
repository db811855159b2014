"""`python -m loadtest.benchmarks.mlperf_client FOLDER`: one run of MLPerf LoadGen's Server scenario against a server.

A process of its own: LoadGen keeps state, and blocks the thread that it issues queries from. Here that thread only
hands a query over; another one sends it and reads the answer, with as many under way as there are. `FOLDER` has
`test.json` (a `Test`) and `images.npy`; LoadGen's logs and `client.json` (a `ClientReport`) are written there.
"""

import asyncio
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
import orjson
import uvloop

from loadtest.connection import Call, Pool, encode
from loadtest.uncollected import uncollected
from loadtest.workload import Images, Reply
from models.zoo.fashion_data import LabelledImages

_CONNECTIONS = 1024
_NO_LABEL = -1
# The default of 5 ms is how long a thread may have to wait for the interpreter while the other one computes.
_SWITCH_SECONDS = 1e-4


@dataclass(frozen=True, slots=True)
class Test:
    """`rate` queries per second for `seconds` and until there were `least_queries`, `percentile` % of which are to be
    within `latency_ms`; or, with `accuracy`, every image once at that rate. `parameters` go into each request."""

    host: str
    port: int
    rate: float
    seconds: float
    least_queries: int
    latency_ms: float
    percentile: float
    accuracy: bool
    parameters: dict[str, float]


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What LoadGen does not know: queries without an answer, the mean level of the others, and the part of the latency
    that is the server's, from the request's last byte written to the answer read."""

    queries: int
    failed: int
    level: float | None
    server_mean_ms: float | None
    server_p99_ms: float | None


class Client:
    """Sends what LoadGen's thread hands over, in a thread of its own."""

    def __init__(self, test: Test, images: Images, loop: asyncio.AbstractEventLoop) -> None:
        self._test, self._images, self._loop = test, images, loop
        self._pool = Pool(test.host, test.port, _CONNECTIONS)
        self._requests = [encode(post, f"{test.host}:{test.port}") for post in images.posts]
        self._server_seconds: list[float] = []
        self._levels: list[float] = []
        self._failed = 0

    async def open(self) -> None:
        await self._pool.open(64)

    def issue(self, queries: Sequence[Any]) -> None:
        """Called by LoadGen, in its thread."""
        for query in queries:
            self._loop.call_soon_threadsafe(self._send, query.id, query.index)

    def report(self) -> ClientReport:
        seconds = np.array(self._server_seconds)
        return ClientReport(
            len(seconds) + self._failed,
            self._failed,
            float(np.mean(self._levels)) if self._levels else None,
            float(1e3 * seconds.mean()) if len(seconds) else None,
            float(1e3 * np.percentile(seconds, 99)) if len(seconds) else None,
        )

    def _send(self, query: int, index: int) -> None:
        sent = 0.0

        def on_sent() -> None:
            nonlocal sent
            sent = time.perf_counter()

        def on_done(reply: Reply | None) -> None:
            self._done(query, index, time.perf_counter() - sent, reply)

        self._pool.submit(Call(self._requests[index], on_sent, on_done))

    def _done(self, query: int, index: int, seconds: float, reply: Reply | None) -> None:
        answer = None if reply is None else self._images.read(reply)
        if answer is None or not len(answer.labels):
            self._failed += 1
            # LoadGen knows no failures. Completed this late, one counts as what it is: not within the latency.
            self._loop.call_later(2e-3 * self._test.latency_ms, _complete, query, _NO_LABEL)
            return
        _complete(query, int(answer.labels[0]))
        self._server_seconds.append(seconds)
        self._levels.append(answer.level)


def _complete(query: int, label: int) -> None:
    data = array("q", [label])
    address, length = data.buffer_info()
    loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, address, length * data.itemsize)])


def run(test: Test, images: LabelledImages, folder: Path) -> ClientReport:
    """One run; LoadGen's logs go into the folder. Raises `OSError` where nobody listens."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    loop = uvloop.new_event_loop()
    client = Client(test, Images(images, test.parameters), loop)
    loop.run_until_complete(client.open())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    sut = loadgen.ConstructSUT(client.issue, lambda: None)
    library = loadgen.ConstructQSL(len(images), len(images), lambda _: None, lambda _: None)
    try:
        with uncollected():
            loadgen.StartTestWithLogSettings(sut, library, _settings(test), _log_settings(folder), "")
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    return client.report()


def _settings(test: Test) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.AccuracyOnly if test.accuracy else loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = test.rate
    settings.server_target_latency_ns = int(1e6 * test.latency_ms)
    settings.server_target_latency_percentile = test.percentile / 100
    settings.min_duration_ms = int(1e3 * test.seconds)
    settings.min_query_count = 1 if test.accuracy else test.least_queries
    return settings


def _log_settings(folder: Path) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings


def main(folder: Path) -> None:
    """Reads the test, runs it, writes the report."""
    test = Test(**orjson.loads((folder / "test.json").read_bytes()))
    images = np.load(folder / "images.npy")
    report = run(test, LabelledImages(images, np.zeros(len(images), np.int64)), folder)
    (folder / "client.json").write_bytes(orjson.dumps(asdict(report)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
