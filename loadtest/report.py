"""A load test's summary as a table."""

from typing import Any

from rich.table import Table

_PERCENTILES = ("50", "99", "99.9")


def summary_table(summary: dict[str, Any]) -> Table:
    """A row for each phase and one for all; takes what `loadtest.summary.summarise` returns."""
    times = {"first_token_ms": "first token ms", "token_ms": "token ms", "latency_ms": "all ms"}
    shown: list[tuple[str, str, str]] = [("latency_ms", percentile, f"p{percentile} ms") for percentile in _PERCENTILES]
    if "first_token_ms" in summary:
        shown = [(name, percentile, f"{times[name]} p{percentile}") for name in times for percentile in ("50", "99")]
    table = Table(
        "phase",
        *("arrivals", "within SLO", *(title for _, _, title in shown), "quality", "level", "not served"),
        title=f"{summary['trace']}: {summary['rate']:.1f} requests/s for {summary['seconds']:g} s",
    )
    for name, figures in (*summary["phases"].items(), ("all", summary)):
        lost = {outcome: count for outcome, count in figures["outcomes"].items() if outcome != "ok"}
        table.add_row(
            name,
            str(figures["arrivals"]),
            number(figures["attainment"], ".2%"),
            *(_milliseconds(figures.get(of, {}).get(percentile)) for of, percentile, _ in shown),
            number(figures["quality"], ".2%"),
            number(figures["level"], ".3f"),
            ", ".join(f"{count} {outcome}" for outcome, count in lost.items()),
        )
    return table


def _milliseconds(value: float | None) -> str:
    return number(value, ".2f" if value is not None and value < 1000 else ".0f")


def number(value: float | None, form: str) -> str:
    """A dash where nothing is known."""
    return "–" if value is None else format(value, form)
