"""How OpenAI's calls for generated text are answered: from the bytes of a request to a JSON answer or a stream."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import orjson
from fastapi import Request, Response

from models.model import Generator, InvalidInput
from service.engine.generation import GenerationRequest, Piece
from service.errors import InvalidRequest, ServiceError
from service.protocol.body import compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import caller_of, unless_disconnected
from service.protocol.event_stream import EventStream, event
from service.protocol.intake import Intake
from service.protocol.limits import Limits
from service.protocol.openai_errors import openai_error
from service.protocol.routing import json_response
from service.protocol.text_answer import AnswerHead, TextCall, new_head, sluice_of, usage_of

PROTOCOL = "openai"
_CHARACTERS = 32
"""A token of any real text is far shorter in the mean: a text of more for each is not even taken apart."""
_LONG_TEXT = 8 * 1024
"""Characters above which a text is taken apart on a thread, and the event loop keeps its other requests moving."""

Parse = Callable[[bytes, Limits], TextCall]


async def answer_text(engine: InferenceEngine, limits: Limits, request: Request, parse: Parse, kind: str) -> Response:
    """The response; ``kind`` is the prefix of its id. Raises ServiceError."""
    with Intake(engine, PROTOCOL) as intake:
        body = await receive_body(request.headers, request.receive, limits.body_bytes)
        intake.received()
        call = parse(body, limits)
        intake.model = call.fields.model
        model = _generator(engine, call.fields.model)
        tokens = await _tokens(model, call)
    fields = call.fields
    generation = engine.generate(
        GenerationRequest(
            "",
            fields.model,
            tokens,
            intake.arrival,
            fields.sampling,
            fields.max_tokens,
            fields.stops,
            fields.options,
            PROTOCOL,
        )
    )
    caller = caller_of(request.scope)
    head = new_head(kind, fields.model)
    if fields.stream:
        # What is refused is answered with its own status, before a stream has begun.
        first = await unless_disconnected(anext(generation), request.receive, caller)
        return EventStream(_events(call, head, first, generation))
    pieces = await unless_disconnected(_all(generation), request.receive, caller)
    answer = json_response(call.whole(head, pieces))
    content, encoding = await compress_for(request.headers.get("accept-encoding", ""), bytes(answer.body))
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    return Response(content, headers=headers, media_type="application/json")


def _generator(engine: InferenceEngine, name: str) -> Generator:
    model = engine.model(name)
    if not isinstance(model, Generator):
        raise InvalidRequest(f"{name!r} does not generate text", "model")
    return model


async def _tokens(model: Generator, call: TextCall) -> list[int]:
    """The prompt's tokens. Raises InvalidRequest where they, and the answer that is asked for, are more than the
    model's context holds.
    """
    try:
        text = call.prompt(model)
    except InvalidInput as error:
        raise InvalidRequest(str(error).removeprefix(f"{error.field}: "), call.prompt_field) from None
    if len(text) > _CHARACTERS * model.context_length:
        raise InvalidRequest(
            f"has {len(text)} characters, more than the {model.context_length} tokens that {model.name!r} holds",
            call.prompt_field,
        )
    tokens = await asyncio.to_thread(model.encode, text) if len(text) > _LONG_TEXT else model.encode(text)
    room, wanted = model.context_length - len(tokens), call.fields.max_tokens
    if not tokens:
        raise InvalidRequest("must not be empty", call.prompt_field)
    if room < 1:
        raise InvalidRequest(
            f"has {len(tokens)} tokens, and the context of {model.name!r} holds {model.context_length} with the answer",
            call.prompt_field,
        )
    if wanted is not None and wanted > room:
        raise InvalidRequest(
            f"must be at most {room}: the context of {model.name!r} holds {model.context_length} tokens,"
            f" of which the prompt has {len(tokens)}",
            call.fields.limit_field,
        )
    return tokens


async def _all(generation: AsyncGenerator[Piece, None]) -> list[Piece]:
    async with aclosing(generation) as pieces:
        return [piece async for piece in pieces]


async def _events(
    call: TextCall, head: AnswerHead, first: Piece, rest: AsyncGenerator[Piece, None]
) -> AsyncGenerator[bytes, None]:
    """``data: …`` for each part of the answer, and ``[DONE]``; an error that comes later is the last part."""
    async with aclosing(rest) as pieces:
        if opening := call.opening(head):
            yield _chunk(call, opening)
        yield _chunk(call, call.chunk(head, first), first)
        last = first
        try:
            async for piece in pieces:
                yield _chunk(call, call.chunk(head, piece), piece)
                last = piece
        except ServiceError as error:
            yield event(orjson.dumps(openai_error(error)))
            return
        if call.fields.include_usage:
            yield event(orjson.dumps(call.closing(head) | {"usage": usage_of(last), "sluice": sluice_of(last)}))
        yield event(b"[DONE]")


def _chunk(call: TextCall, content: dict[str, object], piece: Piece | None = None) -> bytes:
    if call.fields.include_usage:
        # Each chunk has it then, and the one after the last says it.
        content["usage"] = None
    elif piece is not None and piece.finished is not None:
        content["sluice"] = sluice_of(piece)
    return event(orjson.dumps(content))
