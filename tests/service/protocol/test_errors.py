import httpx
import pytest
from fastapi import FastAPI, HTTPException

from service.errors import InvalidRequest, Refused, Unauthorized
from service.protocol.errors import error_response, install_error_handlers


@pytest.fixture
def plain() -> httpx.AsyncClient:
    """A client of an app that has nothing of ours but the handlers."""
    app = FastAPI(redirect_slashes=False)
    install_error_handlers(app)

    @app.get("/number/{number}")
    async def number(number: int, limit: int = 3) -> int:
        return number

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", headers={"X-Pot": "tea"})

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nowhere", 404, "GET /nowhere"),
        ("GET", "/teapot/", 404, "/teapot/"),
        ("GET", "/%ff%00", 404, "Not Found"),
        ("DELETE", "/teapot", 405, "DELETE /teapot"),
        ("GET", "/teapot", 418, "short and stout"),
        ("GET", "/number/x", 400, "number: "),
        ("GET", "/number/1?limit=x", 400, "limit: "),
        ("GET", "/broken", 500, "internal error"),
    ],
)
async def test_every_error_has_the_protocols_form(plain, method, path, status, says):
    response = await plain.request(method, path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert says in response.json()["error"]
    assert "secret" not in response.text
    assert "Traceback" not in response.text


async def test_headers_of_errors_are_kept(plain):
    assert (await plain.get("/teapot")).headers["x-pot"] == "tea"
    assert "GET" in (await plain.delete("/teapot")).headers["allow"]


async def test_the_log_has_what_the_client_is_not_told(plain, caplog):
    await plain.get("/broken")
    assert "secret detail" in caplog.text


def test_a_field_is_named_once():
    error = InvalidRequest("must be a string", "id")
    assert (error.message, error.field, error.reason) == ("id: must be a string", "id", "must be a string")
    assert InvalidRequest("the body is empty").message == "the body is empty"


def test_response_headers():
    assert error_response(Refused("busy", 2.0)).headers["retry-after"] == "2"
    assert error_response(Unauthorized("no")).headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in error_response(Unauthorized("no", challenge=False)).headers
