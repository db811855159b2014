"""`sluice bench`: the benchmarks of `loadtest`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.zoo import catalog, fashion_data
from models.zoo.fashion_data import MissingData
from service.commands.options import Data, Json
from service.commands.output import fail, print_json


def bench() -> typer.Typer:
    """The benchmarks as a group of commands."""
    group = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
    group.command()(kernel)
    group.command()(slo)
    return group


def kernel(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each variant, which take turns")] = 100,
    json: Json = False,
) -> None:
    """Kernels alone: GFLOP/s dense, and time against the share that is skipped, beside torch where it is installed."""
    # The benchmarks build on the service, so only the command that runs one may know of them.
    from loadtest.benchmarks.kernel import run

    run(repeats, json)


def slo(
    overload: Annotated[
        list[float] | None, typer.Option(min=1, help="Height of the bursts × dense capacity; may repeat")
    ] = None,
    bursts: Annotated[int, typer.Option(min=1, help="Bursts in each run")] = 2,
    burst_seconds: Annotated[float, typer.Option(min=1, help="Length of a burst; bursts are a fifth of the time")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed makes the same arrivals")] = 0,
    peer: Annotated[list[str] | None, typer.Option(help="Another server to compare with; `all` for each")] = None,
    data: Data = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the few hundred images that come with Sluice")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw latency, level and arrivals over time to this file")] = None,
    json: Json = False,
) -> None:
    """The SLO under bursts: this server beside itself pinned dense, dense with admission control, always at the
    quality floor, and beside other servers. Needs two cores and nothing else running, and takes some minutes."""
    from loadtest.benchmarks.slo import compare, show, sluice
    from loadtest.benchmarks.slo_plan import Plan
    from loadtest.peers import UnknownPeer, peers
    from loadtest.processes import ServerFailed

    plan = Plan(overloads=tuple(overload or (2.0, 2.5)), bursts=bursts, burst_seconds=burst_seconds, seed=seed)
    try:
        images = fashion_data.sample() if sample else fashion_data.test(data)
        profile = catalog.load("fashion").profile
        with Console(stderr=True).status("") as status:
            comparison = compare(plan, profile, images, sluice(), peers(peer or [], images), status.update)
        if plot is not None:
            from loadtest.benchmarks.slo_plot import plot as draw

            draw(comparison, plot)
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'sluice-serve[loadtest,torch]'")
    except (MissingData, catalog.MissingWeights, UnknownPeer, ServerFailed, RuntimeError, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(comparison.as_dict())
    else:
        show(comparison, Console())
