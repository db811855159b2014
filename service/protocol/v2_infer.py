"""The inference call of the Open Inference Protocol v2."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from service.engine.request import Finished
from service.engine.request import Request as EngineRequest
from service.errors import ServiceError
from service.protocol.body import compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import unless_disconnected
from service.protocol.limits import Limits
from service.protocol.routing import BODY_ERRORS, ERRORS, ErrorBody, ModelName, add_versioned_route, find_model
from service.protocol.v2_documentation import INFER_REQUEST_BODY, INFER_RESPONSE
from service.protocol.v2_request import JSON_LENGTH_HEADER, parse_infer
from service.protocol.v2_response import render_infer

PROTOCOL = "v2"


def infer_router(engine: InferenceEngine, limits: Limits) -> APIRouter:
    """``POST /v2/models/{model}[/versions/{version}]/infer``.

    A request whose client closes the connection is withdrawn. One that cannot be submitted is told to the engine, which
    counts it.
    """
    router = APIRouter(tags=["Inference"])

    # The model is looked up here and not in a dependency: one more of those costs as much as reading the request.
    async def infer(request: Request, model: ModelName) -> Response:
        arrival = time.monotonic()
        try:
            found = find_model(engine, model, request.path_params.get("version"))
            body = await receive_body(request.headers, request.receive, limits.body_bytes)
            # A slow sender's own time is not the server's to make up for.
            arrival = time.monotonic()
            parsed = parse_infer(body, request.headers.get(JSON_LENGTH_HEADER), found.inputs, found.outputs, limits)
        except ServiceError as error:
            engine.reject(model, PROTOCOL, arrival, error)
            raise
        finished = await unless_disconnected(
            engine.submit(
                EngineRequest(
                    id=parsed.id,
                    model=model,
                    inputs=parsed.inputs,
                    arrival=arrival,
                    options=parsed.options,
                    protocol=PROTOCOL,
                )
            ),
            request.receive,
        )
        content, headers = render_infer(
            model,
            found.version,
            parsed.id,
            found.outputs,
            finished.outputs,
            parsed.outputs,
            parameters_of(finished),
        )
        content, encoding = await compress_for(request.headers.get("accept-encoding", ""), content)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        return Response(content, headers=headers)

    add_versioned_route(
        router,
        "/infer",
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
