"""The panels that both dashboards have. `prefix` goes before the names of their lines, to tell several models apart."""

from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Lines

from service.telemetry.dashboards.panels import NUMBER, PER_SECOND, RATIO, Query, lines, number, rows
from service.telemetry.dashboards.queries import Series


def within_slo(series: Series) -> Stat:
    """The share of requests within the SLO."""
    return number(
        "Within the SLO",
        "Requests answered within the SLO in force when they arrived, as a share of all that it judged.",
        RATIO,
        Query(series.attainment(), "{{model}}"),
    )


def burn_rate(series: Series) -> Stat:
    """Misses against the misses that are allowed."""
    return number(
        "Burn rate",
        "Misses as a multiple of what the SLO's percentile allows: below 1 the SLO is met; 14.4 for an hour is a page.",
        NUMBER,
        Query(series.burn_rate(), "{{model}}"),
        steps=(1, 6),
    )


def attainment(series: Series, prefix: str = "") -> Lines:
    """The share of requests within the SLO over time, and the share asked for."""
    return lines(
        "SLO attainment",
        "The share of requests within the SLO's latency, against the share that it asks for (dashed).",
        RATIO,
        [
            Query(series.attainment(), f"{prefix}within the SLO"),
            Query(series.gauge("sluice_slo_percentile_ratio"), f"{prefix}asked for", limit=True),
        ],
        greatest=1,
    )


def level(series: Series, by: str, legend: str, prefix: str = "") -> Lines:
    """The dial, a line for each value of the label `by`, and how far it may go."""
    return lines(
        "Level",
        "The dial: 0 is lossless, 1 the most that the profile allows. The highest that the floor allows is dashed.",
        RATIO,
        [
            Query(series.gauge("sluice_gate_level_ratio", by, how="avg"), legend),
            Query(series.gauge("sluice_gate_level_max_ratio", how="min"), f"{prefix}highest", limit=True),
        ],
        greatest=1,
    )


def skip_rates(series: Series, by: str, legend: str) -> Heatmap:
    """The skip rate of each layer as colours."""
    return rows(
        "Skip rate by layer",
        "Channels skipped, as a share of the layer's channels: dark is dense, bright is skipped.",
        Query(series.channels_skipped(by), legend),
    )


def work_skipped(series: Series, prefix: str = "") -> Lines:
    """MACs and channels skipped."""
    return lines(
        "Work skipped",
        "Multiply-accumulates not done, and channels skipped, as shares of the dense model's.",
        RATIO,
        [
            Query(series.macs_skipped(), f"{prefix}MACs"),
            Query(series.channels_skipped(), f"{prefix}channels"),
        ],
        greatest=1,
    )


def quality(series: Series, prefix: str = "") -> Lines:
    """Expected and live quality against the floor."""
    return lines(
        "Quality",
        "Agreement with the dense model: expected by the profile, found by shadow runs, and the floor (dashed).",
        RATIO,
        [
            Query(series.gauge("sluice_quality_expected_ratio", how="min"), f"{prefix}expected"),
            Query(series.live_agreement(), f"{prefix}live"),
            Query(series.gauge("sluice_quality_floor_ratio"), f"{prefix}floor", limit=True),
        ],
        greatest=1,
    )


def arrivals(by_outcome: Query) -> Lines:
    """Requests per second by how they ended."""
    return lines(
        "Arrivals by outcome",
        "Requests by how they ended: answered, refused at once, expired in the queue, cancelled by the client, "
        "invalid, or failed.",
        PER_SECOND,
        [by_outcome],
        stacked=True,
    )


def queue(waiting: Query, running: Query) -> Lines:
    """What waits, and what runs."""
    return lines(
        "Queue", "Requests that wait for an executor, and those that executors run.", NUMBER, [waiting, running]
    )
