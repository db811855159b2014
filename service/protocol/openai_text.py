"""How OpenAI's calls for generated text are answered: from the bytes of a request to a JSON answer or a stream."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import product

import orjson
from fastapi import Request, Response

from models.model import MOST_CHARACTERS, Generator, InvalidInput
from service.engine.generation import GenerationRequest, Piece
from service.engine.interleave import interleave
from service.engine.long_texts import beside_the_loop_if
from service.errors import InvalidRequest, ServiceError, TooLong
from service.protocol.body import compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import caller_of, unless_disconnected
from service.protocol.event_stream import EventStream, event
from service.protocol.intake import Intake
from service.protocol.limits import Limits
from service.protocol.openai_errors import openai_error
from service.protocol.routing import json_response
from service.protocol.text_answer import AnswerHead, TextCall, ending, new_head, sluice_of

PROTOCOL = "openai"
Parse = Callable[[bytes, Limits], TextCall]


async def answer_text(engine: InferenceEngine, limits: Limits, request: Request, parse: Parse, kind: str) -> Response:
    """The response; ``kind`` is the prefix of its id. Raises ServiceError."""
    with Intake(engine, PROTOCOL) as intake:
        body = await receive_body(request.headers, request.receive, limits.body_bytes)
        intake.received()
        call = parse(body, limits)
        intake.model = call.fields.model
        model = _generator(engine, call.fields.model)
        prompts = await _tokens(model, call, len(body))
    wanted = [
        _generation(call, tokens, choice, number, intake.arrival)
        for number, (tokens, choice) in enumerate(product(prompts, range(call.fields.choices)))
    ]
    pieces = interleave([engine.generate(one) for one in wanted])
    caller = caller_of(request.scope)
    head = new_head(kind, call.fields.model)
    if call.fields.stream:
        # What is refused is answered with its own status, before a stream has begun.
        first = await unless_disconnected(anext(pieces), request.receive, caller)
        return EventStream(_events(call, head, len(wanted), first, pieces))
    choices = await unless_disconnected(_all(pieces, len(wanted)), request.receive, caller)
    answer = json_response(call.whole(head, choices))
    content, encoding = await compress_for(request.headers.get("accept-encoding", ""), bytes(answer.body))
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    return Response(content, headers=headers, media_type="application/json")


def _generation(call: TextCall, tokens: list[int], choice: int, number: int, arrival: float) -> GenerationRequest:
    fields, sampling = call.fields, call.fields.sampling
    if sampling.seed is not None:
        # The choices of a prompt are to differ, and to be the same again.
        sampling = replace(sampling, seed=(sampling.seed + choice) % 2**64)
    return GenerationRequest(
        "", fields.model, tokens, arrival, sampling, fields.max_tokens, fields.stops, fields.options, PROTOCOL, number
    )


def _generator(engine: InferenceEngine, name: str) -> Generator:
    model = engine.model(name)
    if not isinstance(model, Generator):
        raise InvalidRequest(f"{name!r} does not generate text", "model")
    return model


async def _tokens(model: Generator, call: TextCall, length: int) -> list[list[int]]:
    """The tokens of each prompt, of a request of so many bytes. Raises InvalidRequest, where they, and the answer that
    is asked for, are more than the model's context holds `TooLong`.
    """
    if any(token >= model.vocabulary_size for token, _ in call.fields.sampling.bias):
        raise InvalidRequest(f"token ids of {model.name!r} are 0 to {model.vocabulary_size - 1}", "logit_bias")
    try:
        prompts = await beside_the_loop_if(length, call.prompts, model)
    except InvalidInput as error:
        raise InvalidRequest(str(error).removeprefix(f"{error.field}: "), call.prompt_field(0)) from None
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str) and len(prompt) > MOST_CHARACTERS * model.context_length:
            raise TooLong(
                f"has {len(prompt)} characters, more than the {model.context_length} tokens that {model.name!r} holds",
                call.prompt_field(number),
            )

    def encode() -> list[list[int]]:
        return [model.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    length = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    found = await beside_the_loop_if(length, encode)
    for number, tokens in enumerate(found):
        _check_tokens(model, call, tokens, call.prompt_field(number))
    return found


def _check_tokens(model: Generator, call: TextCall, tokens: list[int], field: str) -> None:
    room, wanted = model.context_length - len(tokens), call.fields.max_tokens
    if not tokens:
        raise InvalidRequest("must not be empty", field)
    if room < 1:
        raise TooLong(
            f"has {len(tokens)} tokens, and the context of {model.name!r} holds {model.context_length} with the answer",
            field,
        )
    if not 0 <= min(tokens) <= max(tokens) < model.vocabulary_size:
        raise InvalidRequest(f"token ids of {model.name!r} are 0 to {model.vocabulary_size - 1}", field)
    if wanted is not None and wanted > room:
        raise TooLong(
            f"must be at most {room}: the context of {model.name!r} holds {model.context_length} tokens,"
            f" of which the prompt has {len(tokens)}",
            call.fields.limit_field,
        )


async def _all(pieces: AsyncGenerator[tuple[int, Piece], None], choices: int) -> list[list[Piece]]:
    found: list[list[Piece]] = [[] for _ in range(choices)]
    async with aclosing(pieces) as all_pieces:
        async for choice, piece in all_pieces:
            found[choice].append(piece)
    return found


async def _events(
    call: TextCall,
    head: AnswerHead,
    choices: int,
    first: tuple[int, Piece],
    rest: AsyncGenerator[tuple[int, Piece], None],
) -> AsyncGenerator[bytes, None]:
    """``data: …`` for each part of the answer, and ``[DONE]``; an error that comes later is the last part."""
    last = [first[1]] * choices
    async with aclosing(rest) as pieces:
        for choice in range(choices):
            if opening := call.opening(head, choice):
                yield _chunk(call, opening)
        yield _chunk(call, call.chunk(head, *first), first[1])
        try:
            async for choice, piece in pieces:
                yield _chunk(call, call.chunk(head, choice, piece), piece)
                last[choice] = piece
        except ServiceError as error:
            yield event(orjson.dumps(openai_error(error)))
            return
        if call.fields.include_usage:
            yield event(orjson.dumps(call.closing(head) | ending(last, call.fields.choices)))
        yield event(b"[DONE]")


def _chunk(call: TextCall, content: dict[str, object], piece: Piece | None = None) -> bytes:
    if call.fields.include_usage:
        # Each chunk has it then, and the one after the last says it.
        content["usage"] = None
    elif piece is not None and piece.finished is not None:
        content["sluice"] = sluice_of([piece])
    return event(orjson.dumps(content))
