"""`sluice serve`: the server."""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from models import kernels
from models.zoo import catalog
from service.app import create_app
from service.commands.output import fail
from service.engine.slo_store import SloStoreError
from service.listen import listen
from service.settings import SettingsError, load_settings
from service.telemetry.logs import configure_logging
from service.telemetry.tracing import TracingMissing

log = logging.getLogger(__name__)


def serve(
    config: Annotated[Path | None, typer.Option(envvar="SLUICE_CONFIG", help="Settings in a TOML file")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 is every interface")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Models to host, with commas between")] = None,
    executors: Annotated[
        int | None, typer.Option(help="Models that run at once; 0 is one a core, or to `threads` of them")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each executor, which share the larger products of a run [1]")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
    log_format: Annotated[str | None, typer.Option(help="text, or json: an object each line")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", help="Log each request; json does unless told not to")
    ] = None,
    tracing: Annotated[
        bool | None,
        typer.Option("--tracing/--no-tracing", help="Send OpenTelemetry spans by OTLP/HTTP; OTEL_* say where to"),
    ] = None,
) -> None:
    """Serve models over HTTP. Flags go before SLUICE_* variables, and those before the settings file."""
    try:
        settings = load_settings(
            config,
            host=host,
            port=port,
            models=",".join(model) if model else None,
            executors=executors,
            threads=threads,
            log_level=log_level,
            log_format=log_format,
            access_log=access_log,
            tracing=tracing,
        )
    except SettingsError as error:
        fail(str(error))
    configure_logging(settings.log_format, settings.log_level)
    try:
        names = [catalog.served_name(name) for name in settings.models]
        if twice := {name for name in names if names.count(name) > 1}:
            fail(f"models: {', '.join(sorted(twice))} would be served twice; give the folders different names")
        app = create_app(settings, [catalog.load(name, settings.calibrations) for name in settings.models])
    except (catalog.UnknownModel, SloStoreError, TracingMissing, OSError, ValueError) as error:
        fail(str(error))
    log.info(
        "Sluice %s hosts %s; kernels: %s, %s",
        version("sluice-serve"),
        ", ".join(settings.models),
        kernels.BACKEND,
        kernels.instruction_set(),
    )
    listen(app, settings.host, settings.port, settings.grace_seconds)
