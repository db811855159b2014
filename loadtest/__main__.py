"""`python -m loadtest`: an open-loop load test of a running server, its result as a table or JSON."""

import asyncio
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from loadtest.driver import DriverSettings, replay, server_address
from loadtest.report import summary_table
from loadtest.script import Script, parse_event
from loadtest.shapes import SHAPES, Load, ShapeName
from loadtest.slo_client import SloClient
from loadtest.summary import summarise
from loadtest.workload import Images, Parameters, Workload, load_workload
from models.zoo import fashion_data
from service.commands.output import fail, print_json


def main(
    url: Annotated[str, typer.Option(envvar="SLUICE_URL", help="The server")] = "http://127.0.0.1:8000",
    shape: Annotated[ShapeName, typer.Option(help=f"Load shape: {', '.join(SHAPES)}")] = "steady",
    rate: Annotated[float, typer.Option(help="Arrivals per second")] = 50.0,
    peak: Annotated[float | None, typer.Option(help="Highest rate of the shape; by default twice the rate")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the test")] = 60.0,
    variation: Annotated[float, typer.Option(help="Coefficient of variation of the gaps; 1 is Poisson")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same arrivals")] = 0,
    trace: Annotated[Path | None, typer.Option(help="Replay this file, for the shape 'trace'", exists=True)] = None,
    speed: Annotated[float, typer.Option(help="Replay a trace this many times as fast")] = 1.0,
    batch: Annotated[int, typer.Option(help="Images per request")] = 1,
    level: Annotated[float | None, typer.Option(min=0, max=1, help="Pin the level in each request")] = None,
    workload: Annotated[str | None, typer.Option(help="package.module:function that makes another workload")] = None,
    event: Annotated[list[str] | None, typer.Option(help="SLO change, such as 30:latency_ms=5; may repeat")] = None,
    token: Annotated[str | None, typer.Option(envvar="SLUICE_ADMIN_TOKEN", help="Admin token, for events")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Most connections at once")] = 256,
    give_up: Annotated[float, typer.Option(help="Seconds after which an unanswered request counts as failed")] = 10.0,
    spin: Annotated[bool, typer.Option(help="Busy-wait for precise times; needs a core of its own")] = False,
    allow_remote: Annotated[bool, typer.Option(help="Load a server on another machine")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Sends requests when they are due, whether or not earlier ones were answered, and counts every arrival."""
    problem = ""
    try:
        address = server_address(url, allow_remote)
        load = Load("trace" if trace else shape, rate, peak, seconds, variation, seed, trace, speed)
        arrivals, sent = load.trace(), _workload(workload, batch, level)
        client = SloClient(url, sent.model, token)
        script = Script(client.read()).with_events(parse_event(text) for text in event or ())
        settings = DriverSettings(connections, give_up, spin)
        with Console(stderr=True).status(f"{len(arrivals.times)} requests in {arrivals.seconds:g} s"):
            samples = asyncio.run(replay(address, arrivals, sent, settings, script.events, client.apply))
    except* (ValueError, OSError, httpx.HTTPError) as errors:
        # What is raised in here would come out in a group of its own, and `fail` would not end the command.
        problem = "; ".join(str(error) for error in errors.exceptions)
    if problem:
        fail(problem)
    summary = {"slo": script.slo.as_dict(), **summarise(arrivals, samples, script.at)}
    if json:
        print_json(summary)
    else:
        Console(width=max(Console().width, 110)).print(summary_table(summary))


def _workload(name: str | None, batch: int, level: float | None) -> Workload:
    if name is not None:
        return load_workload(name)
    parameters: Parameters = {} if level is None else {"level": level}
    return Images(fashion_data.sample(), parameters, batch=batch)


if __name__ == "__main__":
    typer.run(main)
