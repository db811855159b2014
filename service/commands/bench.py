"""`sluice bench`: the benchmarks of `loadtest`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from models.zoo import catalog, fashion_data
from service.commands.options import Data, Json, Name, read_levels
from service.commands.output import fail, print_json, share_progress
from service.settings import load_settings


def bench() -> typer.Typer:
    """The benchmarks as a group of commands."""
    group = typer.Typer(help="Measure how fast things are on this machine.", no_args_is_help=True)
    group.command()(kernel)
    group.command()(roofline)
    group.command()(model)
    group.command()(slo)
    group.command()(mlperf)
    group.command()(soak)
    group.command()(overhead)
    return group


def kernel(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each variant, which take turns")] = 100,
    datatype: Annotated[str, typer.Option(help="fp32, bf16 or int8")] = "fp32",
    json: Json = False,
) -> None:
    """Kernels alone: GFLOP/s dense, and time against the share that is skipped, beside torch where it is installed."""
    # The benchmarks build on the service, so only the command that runs one may know of them.
    from loadtest.benchmarks.kernel import run

    if datatype not in ("fp32", "bf16", "int8"):
        raise typer.BadParameter(f"must be fp32, bf16 or int8, not {datatype}", param_hint="--datatype")
    run(repeats, json, datatype)


def roofline(
    datatype: Annotated[str, typer.Option(help="Of the matrix: fp32, bf16 or int8")] = "fp32",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each variant, which take turns")] = 20,
    json: Json = False,
) -> None:
    """What one core can do: arithmetic, memory, and the product of one row with a matrix that no cache holds, dense
    and with half of its channels.

    The matrix is half as large again as the last cache, and is made from one in fp32.
    """
    from loadtest.benchmarks.roofline import run

    if datatype not in ("fp32", "bf16", "int8"):
        raise typer.BadParameter(f"must be fp32, bf16 or int8, not {datatype}", param_hint="--datatype")
    try:
        run(datatype, repeats, json)
    except RuntimeError as error:
        fail(str(error))


def model(
    name: Name,
    against: Annotated[
        str, typer.Option(help="Engines, with commas between: torch, ort, openvino, llama-cpp; or none")
    ] = ("torch,ort,openvino"),
    datatype: Annotated[str, typer.Option(help="fp32, bf16, int8, with commas between")] = "fp32",
    tokens: Annotated[
        str, typer.Option(help="Lengths of the texts, for a model of texts or a language model")
    ] = "16,32,128",
    levels: Annotated[str, typer.Option(help="Levels of the dial")] = "0,0.2,0.4,0.6,0.8,1",
    seconds: Annotated[float, typer.Option(min=0, help="How long each size is measured at each datatype")] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw time against quality to this file")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="Write everything that was measured to this file")] = None,
) -> None:
    """A model beside the engines that a user would pick instead: latency at each level, work done, memory, on one
    thread, the same inputs, in turns. Dense outputs must agree first."""
    from loadtest.benchmarks import model as benchmark

    def split(values: str) -> list[str]:
        return [value.strip() for value in values.split(",") if value.strip() not in ("", "none")]

    try:
        results = benchmark.compare(
            name,
            split(against),
            split(datatype),
            [int(size) for size in split(tokens)],
            read_levels(levels),
            seconds,
            say,
        )
        if file is not None:
            file.write_text(benchmark.as_json(name, results))
        if plot is not None:
            benchmark.plot(results, str(plot))
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'sluice-serve[{'llama-cpp' if error.name == 'llama_cpp' else 'bench'}]'")
    except (catalog.UnknownModel, catalog.MissingWeights, OSError, ValueError) as error:
        fail(str(error))
    benchmark.report(results, Console(width=max(Console().width, 130)))


def slo(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="fashion, or a model of embeddings or of speech; see `sluice models`")
    ] = "fashion",
    overload: Annotated[
        list[float] | None, typer.Option(min=1, help="Height of the bursts × dense capacity; may repeat [2 and 2.5]")
    ] = None,
    bursts: Annotated[int | None, typer.Option(min=1, help="Bursts in each run [2]")] = None,
    burst_seconds: Annotated[
        float | None, typer.Option(min=1, help="Length of a burst [10]; bursts are a fifth of the time")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=0, help="How often a run is repeated at most when the machine's speed changed [1]")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same arrivals")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="One short burst: shows that it works")] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            help="Other servers, with the same image network, to compare with: all, none, or names with commas between "
            "[all for fashion]"
        ),
    ] = None,
    quality_floor: Annotated[
        float, typer.Option(min=0, max=1, help="For other models than fashion, which may lose a point of accuracy")
    ] = 0.95,
    data: Data = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the few hundred images that come with Sluice")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw latency, level and arrivals over time to this file")] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Keep each result here as it comes [SLUICE_HOME/bench/slo-MODEL.jsonl]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the results that are kept end")] = False,
    json: Json = False,
) -> None:
    """The SLO under bursts: this server beside itself pinned dense, dense with admission control, always at the
    quality floor, and beside other servers.

    Needs two cores and nothing else running. All of it takes about half an hour, with --quick three minutes. Servers
    that need packages of their own get an environment in SLUICE_HOME/peers the first time.
    """
    from loadtest.benchmarks.contender import sluice
    from loadtest.benchmarks.journal import Journal
    from loadtest.benchmarks.slo import compare
    from loadtest.benchmarks.slo_plan import QUICK, Plan
    from loadtest.benchmarks.slo_report import report_tables
    from loadtest.benchmarks.slo_subject import subject_of
    from loadtest.peers import UnknownPeer, contenders

    given: dict[str, Any] = {
        "overloads": tuple(overload) if overload else None,
        "bursts": bursts,
        "burst_seconds": burst_seconds,
        "repeats": repeats,
    }
    plan = replace(
        QUICK if quick else Plan(), seed=seed, **{name: value for name, value in given.items() if value is not None}
    )
    peers = peers or ("all" if name == "fashion" else "none")
    names = [peer.strip() for peer in peers.split(",") if peer.strip() not in ("", "none")]
    if names and name != "fashion":
        raise typer.BadParameter("other servers have the image network alone", param_hint="--peers")
    try:
        home = load_settings().home
        subject = subject_of(name, data, sample, plan.floor_points, quality_floor)
        file = results or home / "bench" / f"slo-{subject.model.replace(':', '-')}.jsonl"
        images = fashion_data.sample() if sample or not names else fashion_data.test(data)
        others = contenders(names, images, home / "peers")
        say(f"results are kept in {file}; --resume goes on with them")
        comparison = compare(plan, subject, sluice(name), others, say, Journal(file, resume))
        if plot is not None:
            from loadtest.benchmarks.slo_plot import plot as draw

            draw(comparison, plot)
            say(f"drew {plot}")
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'sluice-serve[loadtest]'")
    except (UnknownPeer, catalog.UnknownModel, catalog.MissingWeights, RuntimeError, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(comparison)
    else:
        for table in report_tables(comparison):
            Console(width=max(Console().width, 130)).print(table)


def mlperf(
    duration: Annotated[
        float, typer.Option(min=1, help="Seconds of the run that confirms a rate; an official result takes 600")
    ] = 60,
    search_duration: Annotated[float, typer.Option(min=1, help="Seconds of each run of the search")] = 10,
    data: Data = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the few hundred images that come with Sluice")] = False,
    json: Json = False,
) -> None:
    """MLPerf LoadGen's Server scenario: the highest Poisson rate that is VALID, dense and with the dial free, and the
    accuracy there.

    Needs two cores and nothing else running, and some quarter of an hour. An official result has other rules besides.
    """
    from loadtest.benchmarks.contender import sluice
    from loadtest.benchmarks.mlperf import Durations, compare, report_table
    from loadtest.benchmarks.mlperf_log import need_loadgen

    durations = Durations(search_duration, duration)
    try:
        need_loadgen()
        images = fashion_data.sample() if sample else fashion_data.test(data)
        profile = catalog.load("fashion").profile
        say(f"two servers, for each a search, a confirmation and all images: {durations.expected_minutes:.0f} minutes")
        comparison = compare(profile, images, sluice(), durations, say)
    except ModuleNotFoundError as error:
        fail(f"{error}: pip install 'sluice-serve[mlperf]'")
    except (RuntimeError, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(comparison.as_dict())
    else:
        Console().print(report_table(comparison))


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run, a fifth of which is the warm-up")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed makes the same requests")] = 0,
    json: Json = False,
) -> None:
    """Good and bad requests, clients that leave, changes of the SLO, and a model that is unloaded and loaded again, all
    at once: every request must be counted once, as its client saw it, and memory must not grow."""
    import asyncio

    from loadtest.benchmarks import soak as benchmark
    from loadtest.processes import server

    try:
        with (
            share_progress() as progress,
            server(benchmark.SERVE, benchmark.READY) as address,
        ):
            task = progress.add_task("soaking", total=1.0)
            run = benchmark.soak(
                address,
                "fashion",
                fashion_data.sample().images,
                60 * minutes,
                seed,
                lambda done: progress.update(task, completed=done),
            )
            result = asyncio.run(run)
    except (RuntimeError, OSError) as error:
        fail(str(error))
    if json:
        print_json(result.as_dict())
    else:
        benchmark.show(result, Console())
    if result.leaks or not result.balances:
        raise typer.Exit(1)


def overhead(
    seconds: Annotated[float, typer.Option(min=1, help="Length of each load, in turns of a second")] = 10,
    json: Json = False,
) -> None:
    """What the server itself costs: all of it around a model that does nothing, beside FastAPI with an empty handler,
    and where the time goes. Needs two cores, wrk, and nothing else running."""
    from loadtest.benchmarks.overhead import measure, show

    try:
        result = measure(seconds, say)
    except (RuntimeError, OSError) as error:
        fail(str(error))
    if json:
        print_json(result.as_dict())
    else:
        show(result, Console())


def say(text: str) -> None:
    """Progress, a line at a time: nothing may move on the screen while the load's core is measured with."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
