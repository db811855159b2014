"""`/docs`: the API as a page to read and try, without anything from elsewhere."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service.errors import Unsupported

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def mount_api_page(app: FastAPI) -> None:
    """Adds `/docs`, drawn by Swagger UI out of the extra `console`; without that, `/docs` says how to get it.

    ``app`` has to be made with ``docs_url=None`` and ``redoc_url=None``: FastAPI's own pages load scripts from a CDN.
    """
    folder = swagger_folder()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        if folder is None:
            raise Unsupported("this page needs: pip install 'sluice-serve[console]'; /openapi.json describes the API")
        # Relative, so that they hold behind a proxy that has the server under a path of its own.
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} API",
            swagger_js_url="docs/swagger/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger/swagger-ui.css",
            swagger_favicon_url="docs/swagger/favicon.png",
        )
        page.headers["Content-Security-Policy"] = POLICY
        return page

    if folder is not None:
        app.mount("/docs/swagger", StaticFiles(directory=folder))


def swagger_folder() -> Path | None:
    """The folder of Swagger UI's files that the package `fastapi-offline` ships; None where it is not installed."""
    spec = find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "static"
