"""`python -m loadtest.traces`: writes the traces that come with Sluice, or one of your own numbers."""

from pathlib import Path
from typing import Annotated

import typer

from loadtest.shapes import Load, ShapeName
from loadtest.trace import save
from loadtest.traces import MADE, SEED, make
from service.commands.output import fail

commands = typer.Typer(help="Make trace files: when the requests of a load test arrive.", add_completion=False)
Folder = Annotated[Path, typer.Argument(help="Where the files go", file_okay=False, exists=True)]


@commands.command("shipped")
def shipped(folder: Folder) -> None:
    """Writes every trace that comes with Sluice."""
    for name, (_, variation) in MADE.items():
        trace = make(name)
        save(trace, folder / f"{name}.trace", seed=SEED, variation=variation)
        typer.echo(f"{name}: {len(trace.times)} arrivals in {trace.seconds:g} s")


@commands.command("make")
def own(
    file: Annotated[Path, typer.Argument(help="The trace file to write")],
    shape: Annotated[ShapeName, typer.Option(help="Load shape")] = "steady",
    rate: Annotated[float, typer.Option(help="Arrivals per second")] = 50.0,
    peak: Annotated[float | None, typer.Option(help="Highest rate of the shape; by default twice the rate")] = None,
    seconds: Annotated[float, typer.Option(help="Length")] = 60.0,
    variation: Annotated[float, typer.Option(help="Coefficient of variation of the gaps; 1 is Poisson")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same arrivals")] = 0,
) -> None:
    """Writes one trace."""
    try:
        trace = Load(shape, rate, peak, seconds, variation, seed).trace()
        save(trace, file, seed=seed, variation=variation)
    except (ValueError, OSError) as error:
        fail(str(error))
    typer.echo(f"{file}: {len(trace.times)} arrivals in {trace.seconds:g} s")


if __name__ == "__main__":
    commands()
