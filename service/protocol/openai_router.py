"""Everything under ``/v1``: the calls of OpenAI's API that the hosted models can answer.

>>> mount_openai(app, engine, Limits())      # doctest: +SKIP
"""

import time
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import Match

from models.model import Embedder, Generator, Transcriber
from service.engine.long_texts import beside_the_loop_if
from service.engine.request import Request as EngineRequest
from service.errors import InvalidRequest, NotFound
from service.protocol.body import compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import caller_of, unless_disconnected
from service.protocol.intake import Intake
from service.protocol.limits import Limits
from service.protocol.openai_audio import add_transcriptions
from service.protocol.openai_chat import parse_chat
from service.protocol.openai_completions import parse_completion
from service.protocol.openai_documentation import CHAT_BODY, COMPLETION_BODY, EMBEDDINGS_BODY
from service.protocol.openai_embeddings import (
    EmbeddingsRequest,
    check_dimensions,
    parse_embeddings,
    render_embeddings,
)
from service.protocol.openai_errors import in_their_shape, method_not_allowed, unknown_url
from service.protocol.openai_text import answer_text
from service.protocol.routing import json_response

PROTOCOL = "openai"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def mount_openai(app: FastAPI, engine: InferenceEngine, limits: Limits) -> None:
    """Adds the routes."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    since = int(time.time())

    @router.get("/models", summary="The models that these calls can use")
    @in_their_shape
    async def models(request: Request) -> Response:
        return json_response({"object": "list", "data": [_described(name, since) for name in _names(engine)]})

    @router.get("/models/{model}", summary="One of them")
    @in_their_shape
    async def model(request: Request, model: str) -> Response:
        if model not in _names(engine):
            raise NotFound(f"no model {model!r} is hosted here that these calls can use")
        return json_response(_described(model, since))

    @router.post("/embeddings", summary="Vectors of texts", openapi_extra={"requestBody": EMBEDDINGS_BODY})
    @in_their_shape
    async def embeddings(request: Request) -> Response:
        with Intake(engine, PROTOCOL) as intake:
            body = await receive_body(request.headers, request.receive, limits.body_bytes)
            intake.received()
            parsed = parse_embeddings(body, limits)
            intake.model = parsed.model
            embedder = _embedder(engine, parsed.model)
            check_dimensions(parsed, embedder)
        inputs = {embedder.inputs[0].name: np.array(parsed.texts, object)}
        submitted = EngineRequest("", parsed.model, inputs, intake.arrival, parsed.options, PROTOCOL)
        try:
            finished = await unless_disconnected(engine.submit(submitted), request.receive, caller_of(request.scope))
        except InvalidRequest as error:
            raise InvalidRequest(error.reason, "input" if error.field in inputs else error.field) from None
        # What it had as tokens is remembered as a rule, and not always.
        tokens = await beside_the_loop_if(sum(map(len, parsed.texts)), _tokens, embedder, parsed)
        answer = json_response(render_embeddings(parsed, finished, tokens))
        content, encoding = await compress_for(request.headers.get("accept-encoding", ""), bytes(answer.body))
        headers = {} if encoding is None else {"Content-Encoding": encoding}
        return Response(content, headers=headers, media_type="application/json")

    add_transcriptions(router, engine, limits)

    @router.post("/chat/completions", summary="The next message", openapi_extra={"requestBody": CHAT_BODY})
    @in_their_shape
    async def chat_completions(request: Request) -> Response:
        return await answer_text(engine, limits, request, parse_chat, "chatcmpl")

    @router.post("/completions", summary="How a text goes on", openapi_extra={"requestBody": COMPLETION_BODY})
    @in_their_shape
    async def completions(request: Request) -> Response:
        return await answer_text(engine, limits, request, parse_completion, "cmpl")

    known = tuple(router.routes)

    @router.api_route("", methods=_METHODS, include_in_schema=False)
    @router.api_route("/{path:path}", methods=_METHODS, include_in_schema=False)
    async def unknown(request: Request) -> Response:
        matching = [route for route in known if route.matches(request.scope)[0] is Match.PARTIAL]
        allowed = {method for route in matching for method in getattr(route, "methods", ())}
        if allowed:
            return method_not_allowed(request.method, request.url.path, allowed)
        return unknown_url(request.method, request.url.path)

    app.include_router(router)


def _names(engine: InferenceEngine) -> list[str]:
    return [
        name
        for name in engine.names()
        if engine.is_ready(name) and isinstance(engine.model(name), Embedder | Generator | Transcriber)
    ]


def _described(name: str, since: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": since, "owned_by": "sluice"}


def _embedder(engine: InferenceEngine, name: str) -> Embedder:
    model = engine.model(name)
    if not isinstance(model, Embedder):
        raise InvalidRequest(f"{name!r} does not make embeddings", "model")
    return model


def _tokens(model: Embedder, request: EmbeddingsRequest) -> int:
    return sum(len(model.tokens(text)) for text in request.texts)
