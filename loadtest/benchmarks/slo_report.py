"""The tables of `sluice bench slo`."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from loadtest.report import number

_BEFORE = ("alone, ms", "within SLO", "in calm", "in bursts")
_BEHIND = ("p50 ms", "p99 ms", "level in calm", "in bursts", "1 s after")


def report_tables(comparison: dict[str, Any]) -> Iterator[Table]:
    """A table for each overload, from what `compare` returns."""
    slo, runs = comparison["slo"], comparison["runs"]
    for overload in comparison["plan"]["overloads"]:
        own = [run for run in runs if run["overload"] == overload]
        arrivals = next((run["arrivals"] for run in own if "failed" not in run), 0)
        table = Table(
            "server",
            *(*_BEFORE, comparison["score"], *_BEHIND),
            "speed",
            "not served",
            title=f"Bursts to {overload:g} × the dense capacity of {comparison['capacity']:.0f} requests/s; "
            f"SLO {slo['percentile']:g} % within {slo['latency_ms']:.1f} ms",
            caption=f"Dense capacity allows {comparison['capacity_share'][f'{overload:g}']:.1%} of the "
            f"{arrivals} arrivals. Refused, failed and late requests are misses. "
            "Level: the median and, in brackets, the mean, which a few clumps move. "
            "Speed: the machine's before and after the run, of what the capacity was measured at.",
        )
        for run in own:
            table.add_row(run["server"], *(_failure(run) if "failed" in run else _cells(run)))
        yield table


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    calm, burst, after = run["phases"]["calm"], run["phases"]["burst"], run["after_bursts"]
    latency = run["latency_ms"]
    lost = {outcome: count for outcome, count in run["outcomes"].items() if outcome != "ok"}
    return (
        number(run["alone_ms"], ".2f"),
        number(run["attainment"], ".2%"),
        number(calm["attainment"], ".2%"),
        number(burst["attainment"], ".2%"),
        number(run["quality"], ".2%"),
        number(latency["50"], ".1f"),
        number(latency["99"], ".1f"),
        _level(calm),
        _level(burst),
        _level(after),
        "–".join(number(speed, ".2f") for speed in run["speed"]),
        ", ".join(f"{count} {outcome}" for outcome, count in lost.items()),
    )


def _level(figures: dict[str, Any]) -> str:
    median, mean = figures["median_level"], figures["level"]
    return "–" if median is None else f"{median:.3f} ({mean:.3f})"


def _failure(run: dict[str, Any]) -> tuple[str, ...]:
    """The first line says what happened, the last is the server's last word; the result has all of them."""
    lines = run["failed"].splitlines()
    reason = " … ".join(dict.fromkeys((lines[0], lines[-1])))
    return (*("–" for _ in (*_BEFORE, "score", *_BEHIND, "speed")), f"[red]failed:[/] {escape(reason[:200])}")
