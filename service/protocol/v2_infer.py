"""The inference call of the Open Inference Protocol v2.

It is answered before FastAPI: routing, dependencies and exception handling there cost more than all that is done here.
FastAPI has a route for it too, from which the API's description is made.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.request import Finished
from service.engine.request import Request as EngineRequest
from service.errors import InvalidRequest, ServiceError
from service.protocol.body import BODY_SECONDS, compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import caller_of, unless_disconnected
from service.protocol.errors import service_error_response
from service.protocol.intake import Intake
from service.protocol.limits import Limits
from service.protocol.parameters import V2_OPTIONS
from service.protocol.routing import BODY_ERRORS, ERRORS, ErrorBody, ModelName, add_versioned_route, find_model
from service.protocol.v2_documentation import INFER_REQUEST_BODY, INFER_RESPONSE
from service.protocol.v2_request import JSON_LENGTH_HEADER, parse_infer
from service.protocol.v2_response import render_infer

PROTOCOL = "v2"
_JSON_LENGTH = JSON_LENGTH_HEADER.lower()
_PREFIX, _SUFFIX = "/v2/models/", "/infer"
_HEADERS = {name.encode(): name for name in ("accept-encoding", "content-encoding", "content-length", _JSON_LENGTH)}


class Inference:
    """Answers ``POST /v2/models/{model}[/versions/{version}]/infer``.

    A request whose client closes the connection is withdrawn. One that cannot be submitted is told to the engine, which
    counts it.
    """

    def __init__(self, engine: InferenceEngine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits

    async def answer(self, scope: Scope, receive: Receive, model: str, version: str | None) -> Response:
        """The response; raises ServiceError, ClientGone where nobody waits for it."""
        with Intake(self._engine, PROTOCOL, model) as intake:
            found = find_model(self._engine, model, version)
            headers = _headers(scope)
            caller = caller_of(scope)
            timed = None if caller is not None and caller.has_sent else BODY_SECONDS
            body = await receive_body(headers, receive, self._limits.body_bytes, timed)
            intake.received()
            parsed = parse_infer(body, headers.get(_JSON_LENGTH), found.inputs, found.outputs, self._limits)
        request = EngineRequest(
            id=parsed.id,
            model=model,
            inputs=parsed.inputs,
            arrival=intake.arrival,
            options=parsed.options,
            protocol=PROTOCOL,
        )
        try:
            finished = await unless_disconnected(self._engine.submit(request), receive, caller)
        except InvalidRequest as error:
            if error.field not in V2_OPTIONS:
                raise
            # The engine does not know where in a request its options stand.
            raise InvalidRequest(error.reason, f"parameters.{error.field}") from None
        content, described = render_infer(
            model,
            found.version,
            parsed.id,
            found.outputs,
            finished.outputs,
            parsed.outputs,
            parameters_of(finished),
        )
        content, encoding = await compress_for(headers.get("accept-encoding", ""), content)
        if encoding is not None:
            described["Content-Encoding"] = encoding
        return Response(content, headers=described)


class InferenceFirst:
    """ASGI middleware: answers the inference call, and passes everything else on."""

    def __init__(self, app: ASGIApp, inference: Inference) -> None:
        self._app = app
        self._inference = inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = _place(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if place is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await self._inference.answer(scope, receive, *place)
        except ServiceError as error:
            response = service_error_response(error)
        await response(scope, receive, send)


def infer_router(inference: Inference) -> APIRouter:
    """The call as FastAPI routes and describes it."""
    router = APIRouter(tags=["Inference"])

    async def infer(request: Request, model: ModelName) -> Response:
        return await inference.answer(request.scope, request.receive, model, request.path_params.get("version"))

    add_versioned_route(
        router,
        _SUFFIX,
        infer,
        methods=["POST"],
        summary="Run the model on one request",
        openapi_extra={"requestBody": INFER_REQUEST_BODY},
        responses={
            200: INFER_RESPONSE,
            **ERRORS,
            **BODY_ERRORS,
            503: {"model": ErrorBody, "description": "Refused or expired"},
        },
    )
    return router


def parameters_of(finished: Finished) -> dict[str, Any]:
    """What the server tells of a finished request: the level, what was skipped, expected quality, times, the SLO."""
    return {
        "level": round(finished.level, 6),
        "skip_rate": round(finished.context.skip_rate, 6),
        "macs_skipped": round(finished.context.macs_skipped_ratio, 6),
        "quality": round(finished.quality, 6),
        "queue_ms": round(finished.queue_seconds * 1e3, 4),
        "compute_ms": round(finished.compute_seconds * 1e3, 4),
        "slo_met": finished.slo_met,
        "slo_attainable": finished.slo_attainable,
    }


def _place(scope: Scope) -> tuple[str, str | None] | None:
    """The model, and the version if one is given, that an inference call's path names; None for any other path."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if not (path.startswith(_PREFIX) and path.endswith(_SUFFIX)):
        return None
    match path[len(_PREFIX) : -len(_SUFFIX)].split("/"):
        case [model] if model:
            return model, None
        case [model, "versions", version] if model and version:
            return model, version
    return None


def _headers(scope: Scope) -> Mapping[str, str]:
    """Those of the headers that are looked at; raises InvalidRequest where one is given twice and both cannot hold."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = _HEADERS.get(raw_name)
        if name is None:
            continue
        value = raw_value.decode("latin-1")
        if name not in found:
            found[name] = value
        elif name == "accept-encoding":
            found[name] += f", {value}"
        else:
            raise InvalidRequest("is given twice", raw_name.decode().title())
    return found
