from collections.abc import Callable, Iterator
from functools import cache, partial

import httpx
import pytest
from fastapi import FastAPI

from service.protocol.admin import admin_authorisation
from service.protocol.errors import install_error_handlers
from service.protocol.limits import Limits
from service.protocol.v2_router import mount_v2
from tests.service.protocol.fakes import Entry, FakeEngine

LIMITS = Limits(body_bytes=100_000, json_bytes=50_000, tensors=4)


def make_app(engine: FakeEngine, token: str | None = None) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    install_error_handlers(app)
    catalog = [Entry("toy"), Entry("absent", "pip install absent-weights")]
    mount_v2(app, engine, LIMITS, admin_authorisation(token), lambda: catalog, "1.2.3")
    return app


def make_client(app: FastAPI, host: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(host, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://server", headers={"accept-encoding": "identity"})


@pytest.fixture(scope="session")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="session")
def app_of(shared_engine: FakeEngine) -> Callable[[str | None], FastAPI]:
    """An app with this admin token. Building one takes longer than most tests, so each is built once."""
    return cache(partial(make_app, shared_engine))


@pytest.fixture
def engine(shared_engine: FakeEngine) -> Iterator[FakeEngine]:
    """The engine behind every app, as new, and left so: not every test asks for it."""
    vars(shared_engine).update(vars(FakeEngine()))
    yield shared_engine
    vars(shared_engine).update(vars(FakeEngine()))


@pytest.fixture
def client(engine: FakeEngine, app_of: Callable[[str | None], FastAPI]) -> httpx.AsyncClient:
    return make_client(app_of(None))


@pytest.fixture
def client_of(engine: FakeEngine, app_of: Callable[[str | None], FastAPI]) -> Callable[..., httpx.AsyncClient]:
    """A client of a server with this admin token, from this address."""

    def make(token: str | None, host: str = "127.0.0.1") -> httpx.AsyncClient:
        return make_client(app_of(token), host)

    return make
