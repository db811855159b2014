"""`GET /`: a page that shows what the server does now."""

from importlib.resources import files

from fastapi import APIRouter, Response

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"
)


def console_router() -> APIRouter:
    """The page is one file without anything from elsewhere, and reads the same calls that every client has."""
    router = APIRouter(include_in_schema=False)
    page = files("service.console").joinpath("index.html").read_bytes()

    @router.get("/")
    async def index() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    return router
