"""Errors as HTTP: the one place where an exception becomes a status and a body.

Every answer but a 200 is ``{"error": "..."}``, for routes that do not exist and for our own faults too: clients of the
protocol read that key and nothing else.
"""

import logging
import math
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InvalidRequest, Refused, ServiceError, Unauthorized

log = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error as ``{"error": "..."}``."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected)


def error_response(error: ServiceError) -> Response:
    """The response for one of the service's own errors, with Retry-After or a challenge where they apply."""
    content: dict[str, Any] = {"error": error.message}
    headers: dict[str, str] = {}
    if isinstance(error, Refused):
        seconds = max(0.0, error.retry_after_seconds) if math.isfinite(error.retry_after_seconds) else 1.0
        content["retry_after_ms"] = math.ceil(seconds * 1e3)
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if isinstance(error, Unauthorized) and error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json(error.status, content, headers)


def service_error_response(error: ServiceError) -> Response:
    """``error_response``, and a fault of the server's own goes to the log."""
    if error.status == 500:
        log.error("internal error", exc_info=error)
    return error_response(error)


def unexpected_response(method: str, path: str, error: Exception) -> Response:
    """The response for a fault that nobody foresaw, which goes to the log."""
    log.error("unexpected error on %s %s", method, path, exc_info=error)
    return _json(500, {"error": "internal error; the server's log has the details"})


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


async def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return service_error_response(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    # The router raises with the bare phrase; say what was asked for.
    if error.status_code in (404, 405) and message == HTTPStatus(error.status_code).phrase:
        message = f"{message}: {request.method} {request.url.path}"
    return _json(error.status_code, {"error": message}, dict(error.headers or {}))


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return error_response(InvalidRequest(first["msg"], field))


async def _unexpected(request: Request, error: Exception) -> Response:
    return unexpected_response(request.method, request.url.path, error)
