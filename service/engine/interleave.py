"""Several generations of one request, read side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from service.engine.generation import Piece


async def interleave(generations: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """Each piece as soon as it is there, with the number of its generation. When one fails the others end too, and its
    error is raised; closing this closes them all.

    Of each one piece at most is read ahead, so that what nobody reads is not made.
    """
    if len(generations) == 1:  # a task for each piece costs more than all else that is done with it here
        async with aclosing(generations[0]) as only:
            async for piece in only:
                yield 0, piece
        return
    first = asyncio.create_task(_next(generations[0]))
    waiting = {first: 0}
    try:
        if not await fails_at_once(first):
            others = enumerate(generations[1:], 1)
            waiting |= {asyncio.create_task(_next(pieces)): number for number, pieces in others}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                found, number = task.result(), waiting.pop(task)
                if found is not None:
                    yield number, found
                    waiting[asyncio.create_task(_next(generations[number]))] = number
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for pieces in generations:
            await pieces.aclose()


async def fails_at_once(first: asyncio.Task[Any]) -> bool:
    """Whether a request's first generation, which is let in or refused for all of them as soon as it runs, is
    refused."""
    await asyncio.sleep(0)
    return first.done() and not first.cancelled() and first.exception() is not None


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece | None:
    """None at the end."""
    return await anext(pieces, None)
