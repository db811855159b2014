"""What the routes of a model have in common: finding it, both of its addresses, JSON answers."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from models.model import Model
from service.errors import NotFound
from service.protocol.collaborators import InferenceEngine

ModelName = Annotated[str, Path(description="The model's name", examples=["fashion"])]


class ErrorBody(BaseModel):
    """Every answer but a 200."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request cannot be used; the error names the field"},
    404: {"model": ErrorBody, "description": "No such model or version"},
    # In place of the framework's own 422, which is never sent.
    "default": {"model": ErrorBody, "description": "Any other error"},
}
BODY_ERRORS: dict[int | str, dict[str, Any]] = {413: {"model": ErrorBody, "description": "The body is over the limit"}}
ADMIN_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorBody, "description": "The admin token is missing or wrong"},
    403: {"model": ErrorBody, "description": "No admin token is set, and the call is not from the server's machine"},
}

_VERSION_PARAMETER = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The model's version",
}


def json_response(content: Any) -> Response:
    """200 with JSON; numbers that JSON lacks (NaN, infinities) are null."""
    return Response(orjson.dumps(content), media_type="application/json")


def hosted_model(engine: InferenceEngine) -> Callable[..., Awaitable[Model]]:
    """A dependency: the model that the path names, found by ``find_model``."""

    async def find(request: Request, model: ModelName) -> Model:
        return find_model(engine, model, request.path_params.get("version"))

    return find


def find_model(engine: InferenceEngine, name: str, version: str | None) -> Model:
    """The model of this name.

    Raises NotFound for an unknown one or another version than it has, Unavailable for one that is not loaded.
    """
    model = engine.model(name)
    if version not in (None, model.version):
        raise NotFound(f"model '{name}' has version '{model.version}', not '{version}'")
    return model


def add_versioned_route(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Any],
    openapi_extra: dict[str, Any] | None = None,
    **route: Any,
) -> None:
    """Route ``/v2/models/{model}{path}`` and the same model's ``/versions/{version}{path}``."""
    extra = openapi_extra or {}
    router.add_api_route(f"/v2/models/{{model}}{path}", endpoint, openapi_extra=extra, **route)
    router.add_api_route(
        f"/v2/models/{{model}}/versions/{{version}}{path}",
        endpoint,
        openapi_extra=extra | {"parameters": [_VERSION_PARAMETER]},
        **route,
    )
