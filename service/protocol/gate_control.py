"""What this server adds to the protocol: a model's SLO, its gate and its profile."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from models.model import Model
from service.control.generation_slo import GenerationSLO, Objective
from service.control.slo import SLO, InvalidSLO
from service.control.speech_slo import SpeechSLO
from service.engine.snapshot import GateSnapshot
from service.errors import InvalidRequest
from service.protocol.admin import Authorise
from service.protocol.body import receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.limits import Limits
from service.protocol.routing import ADMIN_ERRORS, BODY_ERRORS, ERRORS, hosted_model, json_response
from service.protocol.v2_request import parse_json_object

_SHARED: dict[str, Any] = {
    "percentile": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100, "example": 99},
    "quality_floor": {"type": "number", "minimum": 0, "maximum": 1, "example": 0.95},
    "shed": {
        "type": "boolean",
        "description": "Refuse what would be late, in place of answering late",
        "example": True,
    },
}
_MILLISECONDS = {"type": "number", "exclusiveMinimum": 0}
_LATENCY = {"latency_ms": {**_MILLISECONDS, "example": 20}}
_SPEECH = {"audio_second_ms": {"type": "number", "minimum": 0, "description": "More, for each second of audio"}}
_TOKENS = {"first_token_ms": {**_MILLISECONDS, "example": 1000}, "token_ms": {**_MILLISECONDS, "example": 80}}


def gate_router(engine: InferenceEngine, limits: Limits, authorise: Authorise) -> APIRouter:
    """``/v2/models/{model}/slo``, ``/gate`` and ``/profile``."""
    router = APIRouter(prefix="/v2/models/{model}", tags=["SLO and gate"])
    Hosted = Annotated[Model, Depends(hosted_model(engine))]
    change: dict[str, Any] = {
        "response_model": SLO | SpeechSLO | GenerationSLO,
        "dependencies": [Depends(authorise)],
        "responses": ERRORS | ADMIN_ERRORS | BODY_ERRORS,
    }

    async def slo_of(request: Request) -> dict[str, Any]:
        body = await receive_body(request.headers, request.receive, limits.body_bytes)
        return parse_json_object(body, limits)

    @router.get("/slo", summary="The SLO in force", response_model=SLO | SpeechSLO | GenerationSLO, responses=ERRORS)
    async def slo(model: Hosted) -> Response:
        return json_response(engine.slo(model.name).as_dict())

    @router.patch("/slo", summary="Change some of the SLO", openapi_extra=_slo_body(False), **change)
    async def patch_slo(request: Request, model: Hosted) -> Response:
        changes = await slo_of(request)
        return _set_slo(engine, model.name, lambda: engine.slo(model.name).patched(changes))

    @router.put("/slo", summary="Change all of the SLO", openapi_extra=_slo_body(True), **change)
    async def put_slo(request: Request, model: Hosted) -> Response:
        values = await slo_of(request)
        return _set_slo(engine, model.name, lambda: type(engine.slo(model.name)).from_dict(values))

    @router.get("/gate", summary="Where the gate stands, and why", response_model=GateSnapshot, responses=ERRORS)
    async def gate(model: Hosted) -> Response:
        return json_response(asdict(engine.snapshot(model.name).gate))

    @router.get("/profile", summary="The operating points that the level moves between", responses=ERRORS)
    async def profile(model: Hosted) -> Response:
        return json_response(model.profile.as_dict())

    return router


def _set_slo(engine: InferenceEngine, name: str, make: Callable[[], Objective]) -> Response:
    try:
        slo = make()
    except InvalidSLO as error:
        raise InvalidRequest(str(error).removeprefix(f"{error.field}: "), error.field) from None
    return json_response(engine.set_slo(name, slo).as_dict())


def _slo_body(all_required: bool) -> dict[str, Any]:
    def of_kind(title: str, times: dict[str, Any]) -> dict[str, Any]:
        properties = times | _SHARED
        required = {"required": list(properties)} if all_required else {}
        return {"title": title, "type": "object", "properties": properties, "additionalProperties": False, **required}

    kinds = {"SLO": _LATENCY, "SLO of a model of speech": _LATENCY | _SPEECH, "SLO of a language model": _TOKENS}
    # Not oneOf: what changes some of the first is a change of the second too.
    schema = {"anyOf": [of_kind(title, times) for title, times in kinds.items()]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
