"""A generation from its request to its last piece, in the event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from math import inf

from service.engine.generation import GenerationRequest, Piece
from service.engine.hosted import HostedModel
from service.engine.outcomes import Outcomes
from service.engine.scheduler import Scheduler
from service.engine.stream import Stream
from service.errors import ServiceError

Enter = Callable[[str], AbstractContextManager[HostedModel]]
"""Where a model is as long as something is done with it. Raises `ServiceError` when there is none that is ready."""


async def generate(
    request: GenerationRequest, enter: Enter, scheduler: Scheduler, outcomes: Outcomes
) -> AsyncGenerator[Piece, None]:
    """See `service.engine.engine.Engine.generate`."""
    told = False
    try:
        async with aclosing(pieces_of(request, enter, scheduler)) as pieces:
            async for piece in pieces:
                if piece.finished:
                    # Before it is handed over: whoever has all of it may leave without coming back for the end.
                    told = True
                    outcomes.served(request, piece.finished)
                yield piece
    except ServiceError as error:
        outcomes.failed(request.model, request.protocol, request.arrival, error)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        if not told:
            outcomes.cancelled(request)
        raise
    except Exception as error:
        raise outcomes.faulty(request, error) from error


async def pieces_of(request: GenerationRequest, enter: Enter, scheduler: Scheduler) -> AsyncGenerator[Piece, None]:
    """The same, and nobody is told how it ended."""
    with enter(request.model) as hosted:
        stream, timer = Stream(), None
        entry = scheduler.admit_generation(hosted, request, stream)
        if entry.expires < inf:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(entry.expires - entry.admitted, scheduler.expire_generation, entry)
        try:
            while True:
                piece = await stream.get()
                yield piece
                if piece.finished:
                    return
                scheduler.read(entry)
        except ServiceError as error:
            scheduler.generation_failed(entry, error)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            scheduler.withdraw_generation(entry)
