"""The soak: hours of what clients do, in minutes. Good and bad requests, clients that leave, SLOs that change, a model
that is unloaded and loaded; then the books must balance, and memory be where it was.
"""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count as count_from
from random import Random
from statistics import fmean
from time import monotonic
from typing import Any, Literal, get_args

import httpx
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from loadtest.benchmarks.soak_requests import Requests
from loadtest.driver import Address
from service.errors import Outcome

Seen = Literal["ok", "invalid", "unavailable", "error", "left", "lost"]
"""How a request ended for its client: `unavailable` is any 503, `left` one that did not wait for its answer, `lost` one
whose connection broke before the answer was there."""
_SEEN_AS: dict[Outcome, Seen] = {
    "ok": "ok",
    "invalid": "invalid",
    "refused": "unavailable",
    "expired": "unavailable",
    "error": "error",
    "cancelled": "left",
}
SERVE = (
    *(sys.executable, "-c", "from service.cli import main; main()", "serve"),
    *("--port", "{port}", "--model", "fashion", "--log-level", "error"),
)
READY = "/v2/health/ready"
CLIENTS = 8
PAUSE_SECONDS = 0.02
SETTLE_SECONDS = 10.0
RELOAD_EVERY = 4
ALLOWED_GROWTH = 0.05
JUDGED_FROM = 60.0
"""Seconds of a run below which it says nothing of memory."""
WARM_UP_SHARE = 0.2
"""Of the run: caches fill, and the allocator finds its size."""


@dataclass(slots=True)
class Soak:
    """What was sent, how it ended, and the server's memory over time.

    `memory` holds (seconds since the start, bytes).
    """

    seconds: float
    seen: Counter[Seen] = field(default_factory=Counter)
    counted: dict[Outcome, int] = field(default_factory=dict)
    slo_changes: int = 0
    reloads: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def arrivals(self) -> int:
        return sum(self.seen.values())

    @property
    def balances(self) -> bool:
        """Every request was counted once, as its client saw it; those who left may have any outcome."""
        if self.seen["lost"] or self.seen["error"] or sum(self.counted.values()) != self.arrivals:
            return False
        by_server: Counter[Seen] = Counter()
        for outcome, count in self.counted.items():
            by_server[_SEEN_AS[outcome]] += count
        return all(by_server[seen] >= self.seen[seen] for seen in ("ok", "invalid", "unavailable"))

    @property
    def growth(self) -> float | None:
        """Memory in the last tenth of the run over that of the tenth behind the warm-up, less 1; None for a run that is
        too short to say.
        """
        if self.seconds < JUDGED_FROM:
            return None
        after = [size for at, size in self.memory if 0 <= at / self.seconds - WARM_UP_SHARE < 0.1]
        last = [size for at, size in self.memory if at >= 0.9 * self.seconds]
        return fmean(last) / fmean(after) - 1 if after and last else None

    @property
    def leaks(self) -> bool:
        return self.growth is not None and self.growth > ALLOWED_GROWTH

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "arrivals": self.arrivals,
            "balances": self.balances,
            "growth": self.growth,
            "leaks": self.leaks,
        }


async def soak(
    address: Address,
    model: str,
    images: NDArray[np.uint8],
    seconds: float,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Soak:
    """Loads a server that counts no request yet, hosts `model` and takes its SLO from this machine without a token."""
    result, random = Soak(seconds), Random(seed)
    until = monotonic() + seconds
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as http:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                client = Requests(str(address), model, images, Random(random.random()))
                tasks.create_task(_client(address, client, Random(random.random()), until, result.seen))
            tasks.create_task(_operator(http, model, Random(random.random()), until, result))
            tasks.create_task(_watch(http, until, result, progress))
        await _settle(http, result)
    return result


async def _client(address: Address, requests: Requests, random: Random, until: float, seen: Counter[Seen]) -> None:
    """One kept-alive connection, opened again where it was closed."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    while monotonic() < until:
        await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))
        kind = random.random()
        if kind < 0.75:
            end = await _ask(reader, writer, requests.bad() if kind < 0.2 else requests.good())
        else:
            await _leave(writer, requests.good(), random)
            end = "left"
        seen[end] += 1
        if end in ("left", "lost"):
            writer.close()
            reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Seen:
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
    except (OSError, asyncio.IncompleteReadError):
        return "lost"
    status = int(head.split()[1])
    if status == 200:
        return "ok"
    return "invalid" if status < 500 else "unavailable" if status == 503 else "error"


async def _leave(writer: asyncio.StreamWriter, request: bytes, random: Random) -> None:
    """Sends a request, some of it or all, and goes before the answer may be there."""
    head = request.index(b"\r\n\r\n") + 4
    writer.write(request if random.random() < 0.7 else request[: random.randrange(head, len(request))])
    await writer.drain()
    await asyncio.sleep(random.choice((0.0, 0.001, 0.005, 0.02)))


async def _operator(http: httpx.AsyncClient, model: str, random: Random, until: float, result: Soak) -> None:
    """Changes the SLO about every second, and every few times unloads the model and loads it again instead."""
    for step in count_from(1):
        await asyncio.sleep(random.uniform(0.5, 1.5))
        if monotonic() >= until:
            return
        if step % RELOAD_EVERY:
            change = {"latency_ms": random.choice((3, 10, 50)), "quality_floor": random.choice((0.9, 0.97, 1.0))}
            (await http.patch(f"/v2/models/{model}/slo", json=change)).raise_for_status()
            result.slo_changes += 1
            continue
        (await http.post(f"/v2/repository/models/{model}/unload")).raise_for_status()
        await asyncio.sleep(random.uniform(0, 0.3))
        (await http.post(f"/v2/repository/models/{model}/load")).raise_for_status()
        result.reloads += 1


async def _watch(http: httpx.AsyncClient, until: float, result: Soak, progress: Callable[[float], None]) -> None:
    started = until - result.seconds
    while monotonic() < until:
        await asyncio.sleep(min(2.0, result.seconds / 20))
        samples = await _samples(http)
        at = monotonic() - started
        memory = samples.get(("process_resident_memory_bytes", ""))
        if memory is not None:
            result.memory.append((at, memory))
        progress(min(at / result.seconds, 1.0))


async def _settle(http: httpx.AsyncClient, result: Soak) -> None:
    """Reads the books when they balance, or when nothing that is still under way could make them."""
    until = monotonic() + SETTLE_SECONDS
    while monotonic() < until:
        samples = await _samples(http)
        result.counted = {
            outcome: int(samples.get(("sluice_requests_total", outcome), 0)) for outcome in get_args(Outcome)
        }
        if result.balances:
            return
        await asyncio.sleep(0.1)


async def _samples(http: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Each metric's values by its name and outcome, added up over all other labels."""
    text = (await http.get("/metrics")).raise_for_status().text
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name, sample.labels.get("outcome", "")] += sample.value
    return sums


def show(result: Soak, console: Console) -> None:
    """The books, and whether they balance."""
    table = Table("outcome", "by the metrics", "as its client saw it", "clients", title="Requests")
    for outcome, count in result.counted.items():
        table.add_row(outcome, str(count), _SEEN_AS[outcome], str(result.seen[_SEEN_AS[outcome]]))
    table.add_row("all", str(sum(result.counted.values())), "", str(result.arrivals), style="bold")
    console.print(table)
    console.print(
        f"{result.slo_changes} changes of the SLO, {result.reloads} reloads, "
        f"{result.seen['left']} clients that left, {result.seen['lost']} answers lost: "
        + ("every request was counted once" if result.balances else "[red]the books do not balance")
    )
    if result.growth is not None:
        verdict = "[red]it leaks" if result.leaks else "no leak"
        console.print(f"Memory {result.memory[-1][1] / 2**20:.0f} MiB, {result.growth:+.1%} since warm-up: {verdict}")
