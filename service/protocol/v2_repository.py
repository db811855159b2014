"""The model repository extension: what can be hosted, loading and unloading it."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from service.errors import InvalidRequest, Unsupported
from service.protocol.admin import Authorise
from service.protocol.body import receive_body
from service.protocol.collaborators import CatalogEntry, InferenceEngine
from service.protocol.limits import Limits
from service.protocol.parameters import check_parameter_types
from service.protocol.routing import ADMIN_ERRORS, BODY_ERRORS, ERRORS, ModelName, json_response
from service.protocol.v2_request import parse_json_object

Catalog = Callable[[], Sequence[CatalogEntry]]


class IndexEntry(BaseModel):
    """``state`` is READY, LOADING, UNLOADING or UNAVAILABLE; ``reason`` says why it is not READY, and what to do."""

    name: str
    version: str
    state: str
    reason: str


def repository_router(engine: InferenceEngine, limits: Limits, authorise: Authorise, catalog: Catalog) -> APIRouter:
    """The repository's routes; ``catalog`` lists what can be hosted, loaded or not."""
    router = APIRouter(tags=["Model repository"])

    async def body_of(request: Request) -> dict[str, Any]:
        body = await receive_body(request.headers, request.receive, limits.body_bytes)
        return parse_json_object(body, limits) if body.strip() else {}

    @router.post(
        "/v2/repository/index",
        summary="The models that can be hosted",
        response_model=list[IndexEntry],
        responses={400: ERRORS[400], **BODY_ERRORS},
        openapi_extra=_json_body({"ready": {"type": "boolean", "description": "Only the models that are ready"}}),
    )
    async def index(request: Request) -> Response:
        only_ready = (await body_of(request)).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidRequest("must be true or false", "ready")
        entries = repository_index(engine, catalog())
        return json_response([entry for entry in entries if entry["state"] == "READY" or not only_ready])

    @router.post(
        "/v2/repository/models/{model}/load",
        summary="Load a model",
        dependencies=[Depends(authorise)],
        responses={**ERRORS, **ADMIN_ERRORS},
        openapi_extra=_json_body({"parameters": {"type": "object"}}),
    )
    async def load(request: Request, model: ModelName) -> Response:
        for name in check_parameter_types((await body_of(request)).get("parameters"), "parameters"):
            if name == "config" or name.startswith("file:"):
                raise Unsupported(f"parameters.{name[:64]}: a model's files and configuration cannot be sent")
        await engine.load(model)
        return json_response({})

    @router.post(
        "/v2/repository/models/{model}/unload",
        summary="Unload a model",
        dependencies=[Depends(authorise)],
        responses={**ERRORS, **ADMIN_ERRORS},
        openapi_extra=_json_body({"parameters": {"type": "object"}}),
    )
    async def unload(request: Request, model: ModelName) -> Response:
        check_parameter_types((await body_of(request)).get("parameters"), "parameters")
        await engine.unload(model)
        return json_response({})

    return router


def repository_index(engine: InferenceEngine, catalog: Sequence[CatalogEntry]) -> list[dict[str, str]]:
    """The models that are or were hosted, then the others of the catalog, each with its state and the reason for it."""
    entries = []
    versions = {snapshot.name: snapshot.version for snapshot in engine.snapshots()}
    for name in engine.names():
        state, reason = engine.state(name)
        entries.append({"name": name, "version": versions.get(name, ""), "state": state, "reason": reason})
    known = set(engine.names())
    for model in catalog:
        if model.name not in known:
            reason = f"not installed: {model.missing}" if model.missing else "not loaded"
            entries.append({"name": model.name, "version": "", "state": "UNAVAILABLE", "reason": reason})
    return entries


def _json_body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
