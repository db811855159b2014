"""The server, put together: engine, routes, metrics and page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from models.model import Model
from models.zoo import catalog
from service.console.routes import mount_console
from service.control.generation_slo import GenerationSLO
from service.control.slo import SLO
from service.control.speech_slo import SpeechSLO
from service.engine.cores import usable_cores
from service.engine.engine import Engine
from service.engine.profile_watch import follow_profiles
from service.engine.settings import EngineSettings
from service.engine.slo_store import SqliteSloStore
from service.fronted import FrontedApp, behind_proxy
from service.protocol.admin import admin_authorisation
from service.protocol.api_page import mount_api_page
from service.protocol.errors import install_error_handlers
from service.protocol.limits import Limits
from service.protocol.openai_router import mount_openai
from service.protocol.v2_infer import InferenceFirst
from service.protocol.v2_router import mount_v2
from service.settings import Settings
from service.telemetry.logs import log_request
from service.telemetry.metrics import RequestMetrics, register_state
from service.telemetry.records import OnRecord, Recorded
from service.telemetry.routes import metrics_router
from service.telemetry.stale_profiles import StaleProfiles
from service.telemetry.tracing import send_spans

Load = Callable[[str], Model]


def create_app(settings: Settings, models: Iterable[Model], load: Load | None = None) -> FastAPI:
    """An ASGI application that hosts ``models``; its lifespan starts and stops the engine, and
    `app.state.drain` stops it beforehand.

    ``load`` makes a model from its name when a client asks for one; by default those of the catalog. Raises
    SloStoreError where the database of the SLOs cannot be used.
    """
    hosted = tuple(models)
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, [model.name for model in hosted])
    spans = send_spans() if settings.tracing else None
    watchers = [log_request] if settings.logs_requests else []
    # Over the wire a folder goes by its last part.
    places = {catalog.served_name(name): name for name in settings.models}
    engine = Engine(
        hosted,
        engine_settings(settings),
        SqliteSloStore(settings.database),
        OnRecord(metrics) if watchers or spans else metrics,
        load or (lambda name: catalog.load(places.get(name, name), settings.calibrations)),
    )

    def measured_files(name: str) -> catalog.MeasuredFiles | None:
        return catalog.measured_files(places.get(name, name), settings.calibrations)

    stale = StaleProfiles(measured_files)
    register_state(
        registry,
        lambda: [(snapshot, engine.slo(snapshot.name)) for snapshot in engine.snapshots()],
        engine.health,
        lambda: stale.known,
    )

    def stamp(name: str) -> object:
        # A model that is not of the catalog has no file to look at.
        return None if load else catalog.profile_stamp(places.get(name, name), settings.calibrations)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        following = [
            asyncio.create_task(follow_profiles(engine, stamp)),
            asyncio.create_task(stale.follow(engine.names)),
        ]
        try:
            yield
        finally:
            for task in following:
                task.cancel()
            await engine.stop(settings.grace_seconds)
            if spans is not None:
                await asyncio.to_thread(spans.close)

    def hostable() -> tuple[catalog.CatalogEntry, ...]:
        return catalog.available(settings.calibrations)

    # A redirect to the path without its last slash would be an answer that clients of the protocol do not follow.
    app = FrontedApp(
        title="Sluice",
        version=version("sluice-serve"),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # The framework's own would look for a tracer on every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.drain = lambda: engine.stop(settings.grace_seconds)
    install_error_handlers(app)
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    limits = Limits(body_bytes=settings.max_body_bytes)
    inference = mount_v2(app, engine, limits, admin_authorisation(token), hostable, app.version)
    mount_openai(app, engine, limits)
    app.put_in_front(behind_proxy)
    app.put_in_front(partial(InferenceFirst, inference=inference))
    app.put_in_front(partial(Recorded, watchers=[*watchers, *([spans] if spans else [])]))
    app.include_router(metrics_router(registry))
    mount_api_page(app)
    if settings.console:
        mount_console(app, engine, metrics.totals)
    return app


def engine_settings(settings: Settings) -> EngineSettings:
    """The engine's part of the settings."""
    shared = (settings.slo_percentile, settings.quality_floor, settings.shed)
    engine = EngineSettings(
        queue_limit=settings.queue_limit,
        shadow_share=settings.shadow_share,
        default_slo=SLO(settings.slo_latency_ms, *shared),
        default_generation_slo=GenerationSLO(settings.slo_first_token_ms, settings.slo_token_ms, *shared),
        default_speech_slo=SpeechSLO(settings.slo_speech_ms, *shared, settings.slo_audio_second_ms),
        generations=settings.generations,
    )
    executors = settings.executors or max(1, usable_cores() // settings.threads)
    return replace(engine, executors=executors, threads=settings.threads)
