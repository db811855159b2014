"""The open-loop driver: sends a trace's requests when they are due, whatever became of the earlier ones.

Bounded on purpose: a trace ends within a day and a million arrivals, an unanswered request is given up, and a server
elsewhere than on this machine has to be asked for explicitly.
"""

import asyncio
import ipaddress
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.connection import Call, Pool, encode
from loadtest.script import Event
from loadtest.summary import Sample
from loadtest.trace import Trace
from loadtest.uncollected import uncollected
from loadtest.workload import Reply, Workload, judged_sample

_SPIN_SECONDS = 0.002


class RemoteServer(ValueError):
    """The server is not on this machine, and that was not allowed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """`connections` bounds the pool. A request without an answer `give_up_seconds` after it was due is a timeout.

    With `spin` the last 2 ms before a request is due are waited for without sleeping, since an event loop's timers are
    only good to a millisecond: for a load generator that has a core to itself.
    """

    connections: int = 256
    give_up_seconds: float = 10.0
    spin: bool = False


Apply = Callable[[Event], Awaitable[None]]


def server_address(url: str, allow_remote: bool = False) -> Address:
    """The address in `http://host[:port]`. Raises `RemoteServer`, or `ValueError` for another kind of URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"the server's address is http://host:port, got {url!r}")
    if not (allow_remote or _is_loopback(parts.hostname)):
        raise RemoteServer(f"{parts.hostname} is not this machine; a load test of another has to be allowed explicitly")
    return Address(parts.hostname, parts.port or 80)


async def replay(
    address: Address,
    trace: Trace,
    workload: Workload,
    settings: DriverSettings | None = None,
    events: tuple[Event, ...] = (),
    apply: Apply | None = None,
) -> list[Sample]:
    """Replays a trace; one sample per arrival, in order. `apply` is called with each event when it is due, up to the
    trace's end.

    Raises `OSError` where no server listens, and whatever `apply` raises.
    """
    settings = settings or DriverSettings()
    pool = Pool(address.host, address.port, settings.connections)
    data = [encode(post, str(address)) for post in workload.posts]
    await pool.open(min(8, settings.connections))
    loop = asyncio.get_running_loop()
    with uncollected():
        run = _Run(trace, workload, loop.time)
        try:
            async with asyncio.TaskGroup() as tasks:
                if apply is not None:
                    for event in events:
                        if event.at < trace.seconds:
                            tasks.create_task(_at(run, event, apply))
                for number, due in enumerate(trace.times.tolist()):
                    await _wait(run, due, settings.spin)
                    call = run.call(number, due, data[number % len(data)])
                    loop.call_at(run.start + due + settings.give_up_seconds, run.give_up, number, call)
                    pool.submit(call)
                await run.all_over.wait()
        finally:
            pool.close()
    return [sample for sample in run.samples if sample is not None]


class _Run:
    """The state of one replay: what is known of each arrival so far."""

    def __init__(self, trace: Trace, workload: Workload, clock: Callable[[], float]) -> None:
        self._workload, self._clock = workload, clock
        self._times: list[float] = trace.times.tolist()
        self._sent = [math.nan] * len(self._times)
        self._left = len(self._times)
        self.samples: list[Sample | None] = [None] * len(self._times)
        self.all_over = asyncio.Event()
        self.start = clock()

    def now(self) -> float:
        return self._clock() - self.start

    def call(self, number: int, due: float, data: bytes) -> Call:
        def sent() -> None:
            self._sent[number] = self.now()

        return Call(data, sent, lambda reply: self._ended(number, due, reply))

    def give_up(self, number: int, call: Call) -> None:
        if not call.over:
            call.over = True
            self._record(Sample(self._times[number], self._sent[number], math.nan, "timeout"), number)
            if call.connection is not None:
                call.connection.close()

    def _ended(self, number: int, due: float, reply: Reply | None) -> None:
        now = self.now()
        if reply is None:
            self._record(Sample(due, self._sent[number], now, "error"), number)
            return
        judged = self._workload.judge(number % len(self._workload.posts), reply)
        self._record(judged_sample(due, self._sent[number], now, judged), number)

    def _record(self, sample: Sample, number: int) -> None:
        self.samples[number] = sample
        self._left -= 1
        if not self._left:
            self.all_over.set()


async def _wait(run: _Run, due: float, spin: bool) -> None:
    wait = due - run.now()
    if not spin:
        if wait > 0:
            await asyncio.sleep(wait)
        return
    if wait > _SPIN_SECONDS:
        await asyncio.sleep(wait - _SPIN_SECONDS)
    while run.now() < due:
        await asyncio.sleep(0)  # lets the loop look at its sockets


async def _at(run: _Run, event: Event, apply: Apply) -> None:
    await asyncio.sleep(max(0.0, event.at - run.now()))
    await apply(event)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
