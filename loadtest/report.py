"""A load test's summary as a table."""

from typing import Any

from rich.table import Table


def summary_table(summary: dict[str, Any]) -> Table:
    """A row for each phase and one for all; takes what `loadtest.summary.summarise` returns."""
    times = {"first_token_ms": "first token", "token_ms": "each token"}
    shown = {name: title for name, title in times.items() if name in summary}
    table = Table(
        "phase",
        *("arrivals", "within SLO", "p50 ms", "p99 ms", "p99.9 ms"),
        *(f"{title} p{percentile} ms" for title in shown.values() for percentile in ("50", "99")),
        *("quality", "level", "not served"),
        title=f"{summary['trace']}: {summary['rate']:.1f} requests/s for {summary['seconds']:g} s",
    )
    for name, figures in (*summary["phases"].items(), ("all", summary)):
        latency = figures["latency_ms"]
        lost = {outcome: count for outcome, count in figures["outcomes"].items() if outcome != "ok"}
        table.add_row(
            name,
            str(figures["arrivals"]),
            number(figures["attainment"], ".2%"),
            *(number(latency[percentile], ".2f") for percentile in ("50", "99", "99.9")),
            *(number(figures[name][p], ".1f") if name in figures else "–" for name in shown for p in ("50", "99")),
            number(figures["quality"], ".2%"),
            number(figures["level"], ".3f"),
            ", ".join(f"{count} {outcome}" for outcome, count in lost.items()),
        )
    return table


def number(value: float | None, form: str) -> str:
    """A dash where nothing is known."""
    return "–" if value is None else format(value, form)
