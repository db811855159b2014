"""`sluice simulate`: the server's control over a trace of arrivals, in virtual time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from models.gating.profile import Profile
from models.zoo import catalog, fashion_data
from service.commands.options import Json, Name, require_fashion
from service.commands.output import fail, print_json
from service.control.slo import SLO, InvalidSLO
from service.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from loadtest.simulation.report import PhaseReport, Report
    from loadtest.simulation.service_times import ServiceTimes
    from loadtest.trace import Trace

MACS = 100_000_000


def simulate(
    model: Name = "fashion",
    trace: Annotated[Path | None, typer.Option(help="Times of arrival, seconds, one a line")] = None,
    load: Annotated[float, typer.Option(min=0.01, help="Without a trace: load over the dense capacity")] = 0.6,
    peak: Annotated[float, typer.Option(min=0.01, help="Load in the bursts, a fifth of the time")] = 2.0,
    burst_seconds: Annotated[float, typer.Option(min=0.6, help="Length of a burst")] = 10.0,
    bursts: Annotated[int, typer.Option(min=1, help="How many bursts")] = 2,
    seed: Annotated[int, typer.Option(help="Of the arrivals and the noise")] = 0,
    slo_ms: Annotated[float | None, typer.Option(help="Latency; 6 times the dense time by default")] = None,
    percentile: Annotated[float, typer.Option(help="Per cent of requests within it")] = 99.0,
    quality_floor: Annotated[float, typer.Option(help="Lowest quality that is acceptable, 0 to 1")] = 0.95,
    event: Annotated[
        list[str] | None, typer.Option(help="A change of the SLO, such as 30:latency_ms=5; may be repeated")
    ] = None,
    executors: Annotated[int, typer.Option(min=1, help="Requests that run at once")] = 1,
    returns: Annotated[int, typer.Option(min=0, help="How often a refused client comes back, when told to")] = 0,
    profile: Annotated[
        Path | None, typer.Option(help="A profile in place of the model's own; needs --dense-ms")
    ] = None,
    dense_ms: Annotated[float | None, typer.Option(min=1e-3, help="Dense run in ms; measured by default")] = None,
    overhead: Annotated[float, typer.Option(min=0, max=1, help="Share of --dense-ms that no skipping saves")] = 0.1,
    noise: Annotated[float, typer.Option(min=0, help="Spread of single runs around --dense-ms (log-normal)")] = 0.05,
    json: Json = False,
) -> None:
    """Find out what an SLO costs under a load, without a server: its own control code in virtual time.

    Service times are measured on this machine unless --dense-ms is given.
    """
    # The load tests build on the service, so only the command that runs one may know of them.
    from loadtest.script import Script, parse_event
    from loadtest.simulation.model import SimulatedModel, host
    from loadtest.simulation.report import report
    from loadtest.simulation.simulator import Simulation, requests_at
    from loadtest.trace import InvalidTrace

    try:
        operating, times, macs = _subject(model, profile, dense_ms, overhead, noise, seed)
        arrivals = _arrivals(trace, times.dense / executors, load, peak, burst_seconds, bursts, seed)
        slo = SLO(slo_ms or 6e3 * times.dense, percentile, quality_floor)
        script = Script(slo).with_events(parse_event(text) for text in event or ())
    except (SettingsError, catalog.MissingWeights, InvalidTrace, InvalidSLO, OSError, ValueError, KeyError) as error:
        fail(str(error))
    hosted = host(SimulatedModel(operating, macs), slo, times)
    changes = [(one.at, lambda at=one.at: hosted.set_slo(script.at(at))) for one in script.events]
    simulation = Simulation(hosted, times, executors, returns=returns)
    found = report(simulation.run(requests_at(arrivals.times, hosted.name), changes), arrivals.spans)
    attainable = hosted.snapshot(simulation.now, ready=True).gate.slo_attainable
    if json:
        about = {"slo": slo.as_dict(), "dense_ms": times.dense * 1e3, "slo_attainable": attainable}
        print_json({**about, **found.as_dict()})
    else:
        _print(slo, attainable, found, returns > 0)


def _subject(
    name: str, profile: Path | None, dense_ms: float | None, overhead: float, noise: float, seed: int
) -> "tuple[Profile, ServiceTimes, int]":
    """The profile, the service times and the dense MACs of one item."""
    from loadtest.simulation.service_times import from_profile, measure

    if profile is not None and dense_ms is None:
        raise ValueError("--profile alone says nothing of time: give --dense-ms too")
    if profile is not None and dense_ms is not None:
        operating = Profile.load(profile)
        return operating, from_profile(operating, dense_ms / 1e3, MACS, overhead, noise, seed), MACS
    require_fashion(name)
    model = catalog.load(name, load_settings().calibrations)
    inputs = {"image": fashion_data.sample().images[:1]}
    macs = model.dense_macs(inputs)
    if dense_ms is not None:
        return model.profile, from_profile(model.profile, dense_ms / 1e3, macs, overhead, noise, seed), macs
    return model.profile, measure(model, inputs, seed=seed), macs


def _arrivals(
    path: Path | None, dense: float, load: float, peak: float, burst_seconds: float, count: int, seed: int
) -> "Trace":
    from loadtest.curve import bursts
    from loadtest.trace import generate
    from loadtest.trace import load as load_trace

    if path is not None:
        return load_trace(path)
    return generate("bursts", bursts(load / dense, peak / dense, burst_seconds, 0.2, count), seed)


def _print(slo: SLO, attainable: bool, found: "Report", returned: bool) -> None:
    columns = ("phase", "arrivals", "within SLO", "refused", "expired", "p50 ms", "p99 ms", "level", "±", "quality")
    title = f"{slo.percentile:g} % within {slo.latency_ms:.3g} ms, quality at least {slo.quality_floor:g}"
    table = Table(*columns, title=title)
    rows = (*found.phases, found.total, *((found.returns,) if returned else ()))
    for row in rows:
        table.add_row(*_cells(row))
    console = Console(width=max(Console().width, 110))
    console.print(table)
    if not attainable:
        console.print("The SLO cannot be met: even the quality floor's level takes longer, alone on the server.")


def _cells(row: "PhaseReport") -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> Any:
        return "" if value is None else format(value, form)

    return (
        row.name,
        str(row.arrivals),
        shown(row.attainment, ".2%"),
        str(row.refused),
        str(row.expired),
        shown(row.p50_ms, ".2f"),
        shown(row.p99_ms, ".2f"),
        shown(row.level, ".3f"),
        shown(row.level_deviation, ".3f"),
        shown(row.quality, ".2%"),
    )
