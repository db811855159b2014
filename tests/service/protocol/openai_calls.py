"""OpenAI's own client on an engine, without a socket between."""

import httpx
import openai
from fastapi import FastAPI

from service.protocol.errors import install_error_handlers
from service.protocol.openai_router import mount_openai
from tests.service.protocol.conftest import LIMITS


def openai_http(engine) -> httpx.AsyncClient:
    """What the client sends through, for requests that it would not make."""
    app = FastAPI(redirect_slashes=False)
    install_error_handlers(app)
    mount_openai(app, engine, LIMITS)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def openai_client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url="http://server/v1", http_client=http, max_retries=0)
