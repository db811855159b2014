"""FastAPI with ASGI middleware around all of it."""

import os
from collections.abc import Callable
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class FrontedApp(FastAPI):
    """FastAPI behind a front that sees every request first.

    What `add_middleware` adds stands inside of five layers of the framework's own, which a call that FastAPI does not
    answer would pass for nothing.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._front: ASGIApp = super().__call__

    def put_in_front(self, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        """``wrap`` is given what was in front so far; what it returns sees each request before that."""
        self._front = wrap(self._front)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


def behind_proxy(app: ASGIApp) -> ASGIApp:
    """``app``, told the client's own address and scheme by a proxy that is trusted: one of FORWARDED_ALLOW_IPS, by
    default this machine."""
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
    return cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))
