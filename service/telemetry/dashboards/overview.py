"""The overview: is each model's SLO met, what does that cost in quality, and why."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.dashboard import DashboardLink, DashboardLinkType, Panel

from service.telemetry.dashboards import shared
from service.telemetry.dashboards.panels import (
    PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    datasource_variable,
    label_variable,
    lines,
    number,
    page,
    row,
)
from service.telemetry.dashboards.queries import MODELS, SERVERS

DRILL_DOWN = (
    "/d/sluice-model?var-model=${__field.labels.model}&${datasource:queryparam}&${job:queryparam}"
    "&${instance:queryparam}&${__url_time_range}"
)


def overview() -> Dashboard:
    """All models on all servers; its variables narrow that down."""
    board = page(
        "Sluice",
        "sluice",
        "Latency against the objective, and the work that was skipped to keep it.",
        [
            datasource_variable(),
            label_variable("job", "Job"),
            label_variable("instance", "Instance", 'job=~"$job"'),
            label_variable("model", "Model", SERVERS.matchers),
        ],
        changes=MODELS,
    )
    board = _load(_quality(_objective(_glance(board))))
    for panel in board.build().panels or []:
        if isinstance(panel, Panel) and panel.field_config is not None:
            panel.field_config.defaults.links = [DashboardLink("This model", DashboardLinkType.LINK, url=DRILL_DOWN)]
    return board


def _glance(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("At a glance"))
        .with_panel(shared.within_slo(MODELS))
        .with_panel(shared.burn_rate(MODELS))
        .with_panel(
            number(
                "Error budget left",
                "What is left of the misses that the percentile allows in 30 days: 100 % is untouched, 0 % spent.",
                RATIO,
                Query(MODELS.budget_left(), "{{model}}", instant=True),
                steps=(0, 0.25),
                worse_below=True,
            )
        )
        .with_panel(
            number(
                "MACs skipped",
                "Multiply-accumulates not done, as a share of the dense model's: what skipping is worth.",
                RATIO,
                Query(MODELS.macs_skipped(), "{{model}}"),
            )
        )
        .with_panel(
            number(
                "Live agreement",
                "Gated answers that agreed with the dense model, as a share of those that were run again dense.",
                RATIO,
                Query(MODELS.live_agreement(), "{{model}}"),
            )
        )
        .with_panel(
            number(
                "Requests",
                "All that ended, however they ended.",
                PER_SECOND,
                Query(MODELS.rate("sluice_requests_total"), "{{model}}"),
            )
        )
    )


def _objective(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("The objective"))
        .with_panel(shared.attainment(MODELS, "{{model}}: "))
        .with_panel(
            lines(
                "Tail latency",
                "The latency that 99 % of the last 10 s' requests stayed within, against the SLO's latency (dashed).",
                SECONDS,
                [
                    Query(MODELS.gauge("sluice_tail_latency_seconds", where=('percentile="99"',)), "{{model}}: 99 %"),
                    Query(MODELS.gauge("sluice_slo_latency_seconds", how="min"), "{{model}}: SLO", limit=True),
                ],
            )
        )
    )


def _quality(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("Work and quality"))
        .with_panel(shared.level(MODELS, "model", "{{model}}", "{{model}}: "))
        .with_panel(shared.skip_rates(MODELS, "model, layer", "{{model}} {{layer}}"))
        .with_panel(shared.quality(MODELS, "{{model}}: "))
        .with_panel(shared.work_skipped(MODELS, "{{model}}: "))
    )


def _load(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("Load"))
        .with_panel(
            shared.arrivals(Query(MODELS.rate("sluice_requests_total", "model, outcome"), "{{model}}: {{outcome}}"))
        )
        .with_panel(
            shared.queue(
                Query(MODELS.gauge("sluice_queue_depth", how="sum"), "{{model}}: waiting"),
                Query(MODELS.gauge("sluice_inflight", how="sum"), "{{model}}: running"),
            )
        )
    )
