"""`GET /metrics`, in the Prometheus text format or OpenMetrics, as the scraper asks."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """The route that exposes ``registry``. It runs in the event loop, where the engine's state holds still."""
    router = APIRouter(tags=["metrics"])

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return router
