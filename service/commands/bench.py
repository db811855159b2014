"""`sluice bench`: the benchmarks of `loadtest`."""

from typing import Annotated

import typer

from service.commands.options import Json


def bench() -> typer.Typer:
    """The benchmarks as a group of commands."""
    group = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
    group.command()(kernel)
    group.callback()(_group)
    return group


def kernel(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each variant, which take turns")] = 100,
    json: Json = False,
) -> None:
    """Kernels alone: GFLOP/s dense, and time against the share that is skipped, beside torch where it is installed."""
    # The benchmarks build on the service, so only the command that runs one may know of them.
    from loadtest.benchmarks.kernel import run

    run(repeats, json)


def _group() -> None:
    """Keeps `kernel` a command of its own: typer runs a group's only command in place of the group."""
