"""A closed loop: a few connections that always have a request under way. It finds what a server can do at most.

For capacity only. Latency under a given load is the open-loop driver's to measure.
"""

import asyncio
from dataclasses import dataclass

from loadtest.connection import Call, Pool, encode
from loadtest.driver import Address
from loadtest.workload import Reply, Workload


@dataclass(frozen=True, slots=True)
class Saturation:
    """Answers per second, and the seconds that each of them took."""

    rate: float
    latencies: tuple[float, ...]


async def saturate(address: Address, workload: Workload, connections: int, seconds: float) -> Saturation:
    """Raises `RuntimeError` on the first request that is not served, `OSError` where nobody listens."""
    loop = asyncio.get_running_loop()
    pool = Pool(address.host, address.port, connections)
    data = [encode(post, str(address)) for post in workload.posts]
    await pool.open(connections)
    latencies: list[float] = []
    start = loop.time()

    async def one_after_the_other(first: int) -> None:
        number = first
        while loop.time() < start + seconds:
            at = number % len(data)
            reply: asyncio.Future[Reply | None] = loop.create_future()
            sent = loop.time()
            pool.submit(Call(data[at], lambda: None, reply.set_result))
            answer = await reply
            if answer is None or workload.judge(at, answer).outcome != "ok":
                raise RuntimeError(f"the server did not serve a request: {answer.body[:200]!r}" if answer else "closed")
            latencies.append(loop.time() - sent)
            number += connections

    try:
        async with asyncio.TaskGroup() as tasks:
            for first in range(connections):
                tasks.create_task(one_after_the_other(first))
    except* RuntimeError as errors:
        problem = str(errors.exceptions[0])
        raise RuntimeError(problem) from None
    finally:
        pool.close()
    return Saturation(len(latencies) / (loop.time() - start), tuple(latencies))
