"""`GET /`: the page that shows what the server does now, its files, and the one call that it repeats."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.staticfiles import StaticFiles

from service.console.charts import vega_folder
from service.console.samples import sample_images
from service.console.state import model_state
from service.protocol.collaborators import InferenceEngine
from service.protocol.routing import json_response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def mount_console(app: FastAPI, engine: InferenceEngine, totals: Callable[[str], Mapping[str, int]]) -> None:
    """Adds the page at `/` and what it needs under `/console`; everything is served from here.

    ``totals`` counts a model's requests by outcome. Changes go through the calls that every client has.
    """
    router = APIRouter(include_in_schema=False)
    folder = Path(str(files("service.console").joinpath("static")))
    page = (folder / "index.html").read_bytes()

    @router.get("/")
    async def index() -> Response:
        return Response(
            page, media_type="text/html", headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        )

    @router.get("/console/state/{name}")
    async def state(name: str) -> Response:
        return json_response(model_state(engine.snapshot(name), engine.slo(name), totals(name)))

    @router.get("/console/samples/{name}")
    async def samples(name: str) -> Response:
        return json_response(sample_images(engine.model(name)))

    app.include_router(router)
    app.mount("/console/static", _Revalidated(directory=folder))
    vega = vega_folder()
    if vega:
        app.mount("/console/vega", _Revalidated(directory=vega))


class _Revalidated(StaticFiles):
    """Files that a browser keeps and asks about again, by their ETag, so that an upgrade shows at once."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response
