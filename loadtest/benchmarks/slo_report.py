"""The tables of `sluice bench slo`."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from loadtest.report import number


def report_tables(comparison: dict[str, Any]) -> Iterator[Table]:
    """A table for each overload, from what `Comparison.as_dict` returns."""
    slo, runs = comparison["slo"], comparison["runs"]
    for overload in dict.fromkeys(run["overload"] for run in runs):
        own = [run for run in runs if run["overload"] == overload]
        table = Table(
            "server",
            *("within SLO", "in bursts", "accuracy", "p50 ms", "p99 ms", "level in bursts", "level 1 s after"),
            "not served",
            title=f"Bursts to {overload:g} × the dense capacity of {comparison['capacity']:.0f} requests/s; "
            f"SLO {slo['percentile']:g} % within {slo['latency_ms']:.1f} ms",
            caption=f"Dense capacity allows {comparison['capacity_share'][f'{overload:g}']:.1%} of the "
            f"{own[0]['arrivals']} arrivals. Refused, failed and late requests are misses.",
        )
        for run in own:
            burst, after, latency = run["phases"]["burst"], run["after_bursts"], run["latency_ms"]
            lost = {outcome: count for outcome, count in run["outcomes"].items() if outcome != "ok"}
            table.add_row(
                run["server"],
                number(run["attainment"], ".2%"),
                number(burst["attainment"], ".2%"),
                number(run["quality"], ".2%"),
                number(latency["50"], ".1f"),
                number(latency["99"], ".1f"),
                number(burst["level"], ".3f"),
                number(after["level"], ".3f"),
                ", ".join(f"{count} {outcome}" for outcome, count in lost.items()),
            )
        yield table
