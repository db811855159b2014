"""The command line: `sluice serve`, `models`, `infer` and the others, put together from `service.commands`."""

from importlib.metadata import version
from typing import Annotated

import typer

from service.commands.bench import bench
from service.commands.calibrate import calibrate
from service.commands.infer import infer
from service.commands.models import models
from service.commands.quality import quality
from service.commands.serve import serve
from service.commands.simulate import simulate
from service.commands.slo import slo
from service.commands.train import train
from service.commands.tune import tune


def command_line() -> typer.Typer:
    """All commands, as one application."""
    app = typer.Typer(
        help="Sluice serves models that do less work per request to keep a latency objective.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for command in (serve, models, infer, slo, train, tune, calibrate, quality, simulate):
        app.command()(command)
    app.add_typer(bench(), name="bench")
    return app


def main() -> None:
    """The console script."""
    command_line()()


def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=lambda asked: _print_version(asked))
    ] = False,
) -> None:
    """Sluice serves models that do less work per request to keep a latency objective."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sluice {version('sluice-serve')}")
        raise typer.Exit
