"""A request to a language model as to any other model: texts in, whole texts out. Each is a generation of its own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import numpy as np

from models.model import GateContext, Generator
from service.engine.generation import GenerationOptions, GenerationRequest, Piece
from service.engine.generation_entry import add_counts
from service.engine.interleave import fails_at_once
from service.engine.request import Finished, Request, TokenTimes
from service.engine.sampling import Sampling
from service.errors import Internal, ServiceError

GREEDY = Sampling(temperature=0.0)
Pieces = Callable[[GenerationRequest], AsyncGenerator[Piece, None]]


async def whole_texts(request: Request, model: Generator, pieces: Pieces) -> Finished:
    """What the prompts of a checked request go on with, all at once. When one fails the others end too, and its error
    is raised.
    """
    given = request.inputs.get("max_tokens")
    most = model.usual_tokens if given is None else int(given[0])
    wanted = [
        GenerationRequest(
            id=request.id,
            model=request.model,
            tokens=model.encode(prompt.decode()),
            arrival=request.arrival,
            sampling=GREEDY,
            max_tokens=most,
            options=GenerationOptions(request.options, request.options.first_token_ms, request.options.token_ms),
            protocol=request.protocol,
            number=number,
        )
        for number, prompt in enumerate(request.inputs["prompt"])
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_whole(pieces(wanted[0])))]
            if not await fails_at_once(tasks[0]):
                tasks += [group.create_task(_whole(pieces(one))) for one in wanted[1:]]
    except* ServiceError as errors:
        raise _first(errors) from None
    texts, finished = zip(*(task.result() for task in tasks), strict=True)
    return replace(together(finished), outputs={"text": np.array(texts, object)})


async def _whole(pieces: AsyncGenerator[Piece, None]) -> tuple[bytes, Finished]:
    text, finished = "", None
    async for piece in pieces:
        text += piece.text
        finished = piece.finished
    if finished is None:
        raise Internal("a generation came to no end")
    return text.encode(), finished


def together(finished: Sequence[Finished]) -> Finished:
    """What several generations of one request come to: levels and qualities are the mean, times the longest, what was
    computed the sum. It has no outputs.
    """
    context, times = GateContext(0.0), [one.tokens for one in finished if one.tokens is not None]
    for one in finished:
        add_counts(context, one.context)
    each = [time.token_seconds for time in times if time.token_seconds is not None]
    return Finished(
        request_id=finished[0].request_id,
        outputs={},
        level=sum(one.level for one in finished) / len(finished),
        quality=sum(one.quality for one in finished) / len(finished),
        context=context,
        queue_seconds=max(one.queue_seconds for one in finished),
        compute_seconds=sum(one.compute_seconds for one in finished),
        duration=max(one.duration for one in finished),
        slo_met=all(one.slo_met for one in finished),
        slo_attainable=all(one.slo_attainable for one in finished),
        taken=min(one.taken for one in finished),
        started=min(one.started for one in finished),
        tokens=TokenTimes(
            sum(time.prompt_tokens for time in times),
            sum(time.generated_tokens for time in times),
            max(time.first_token_seconds for time in times),
            max(each) if each else None,
        ),
    )


def _first(errors: BaseExceptionGroup[ServiceError]) -> ServiceError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
