"""Errors in OpenAI's shape, which its clients turn into exceptions of their own: ``{"error": {"message", "type",
"param", "code"}}``."""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any

import orjson
from starlette.responses import Response

from service.errors import Internal, InvalidRequest, NotFound, ServiceError, TooLong
from service.protocol.errors import service_error_response

log = logging.getLogger(__name__)

Endpoint = Callable[..., Awaitable[Response]]


def in_their_shape(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose errors are answered in OpenAI's shape."""

    @wraps(endpoint)
    async def answer(*args: Any, **kwargs: Any) -> Response:
        try:
            return await endpoint(*args, **kwargs)
        except ServiceError as error:
            return openai_error_response(error)
        except Exception as error:
            log.exception("unexpected error on %s", endpoint.__name__)
            return openai_error_response(Internal(f"the server failed on this request: {type(error).__name__}"))

    return answer


def openai_error_response(error: ServiceError) -> Response:
    """The response for one of the service's errors, with the status and headers that it has everywhere."""
    response = service_error_response(error)
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(orjson.dumps(openai_error(error)), error.status, headers, "application/json")


def openai_error(error: ServiceError) -> dict[str, Any]:
    """The error in their shape."""
    described: dict[str, Any] = {
        "message": error.message,
        "type": "invalid_request_error" if error.status < 500 else "server_error",
        "param": error.field or None if isinstance(error, InvalidRequest) else None,
        "code": _code(error),
    }
    return {"error": described}


def unknown_url(method: str, path: str) -> Response:
    """The answer where nothing is found."""
    return _described_response(404, f"Unknown request URL: {method} {path}. /docs lists the calls.", "unknown_url")


def method_not_allowed(method: str, path: str, allowed: Collection[str]) -> Response:
    """The answer where another method would be right (RFC 9110 §15.5.6)."""
    methods = ", ".join(sorted(allowed))
    answer = _described_response(405, f"{path} does not take {method}; it takes {methods}", "method_not_allowed")
    answer.headers["Allow"] = methods
    return answer


def _described_response(status: int, message: str, code: str) -> Response:
    described = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Response(orjson.dumps({"error": described}), status, media_type="application/json")


def _code(error: ServiceError) -> str | None:
    if isinstance(error, NotFound):
        return "model_not_found"
    if isinstance(error, TooLong):
        return "context_length_exceeded"
    return None if error.outcome == "invalid" else error.outcome
