"""The drill-down: one model, its latency taken apart, its gates layer by layer, and the process that runs it."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from service.telemetry.dashboards import shared
from service.telemetry.dashboards.panels import (
    BYTES,
    NUMBER,
    PER_SECOND,
    RATIO,
    SECONDS,
    YES_NO,
    Query,
    datasource_variable,
    histogram,
    label_variable,
    lines,
    number,
    page,
    row,
)
from service.telemetry.dashboards.queries import MODEL, SERVERS

PERCENTILES = ("50", "95", "99", "99.9")


def model() -> Dashboard:
    """One model, on the servers that the variables choose."""
    board = page(
        "Sluice: one model",
        "sluice-model",
        "One model: where its latency comes from, what its gates do, and how good its answers are.",
        [
            datasource_variable(),
            label_variable("job", "Job"),
            label_variable("instance", "Instance", 'job=~"$job"'),
            label_variable("model", "Model", SERVERS.matchers, every=False),
        ],
        changes=MODEL,
    )
    return _server(_load(_gates(_text(_latency(_glance(board))))))


def _glance(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("At a glance"))
        .with_panel(shared.within_slo(MODEL))
        .with_panel(shared.burn_rate(MODEL))
        .with_panel(
            number(
                "SLO attainable",
                "No where one request alone would miss the SLO even at the highest level that the floor allows.",
                YES_NO,
                Query(MODEL.gauge("sluice_slo_attainable", how="min"), "{{model}}"),
                steps=(0.5, 1),
                worse_below=True,
            )
        )
        .with_panel(
            number(
                "Highest level",
                "How far the dial may go before the quality floor, or live agreement, stops it.",
                RATIO,
                Query(MODEL.gauge("sluice_gate_level_max_ratio", how="min"), "{{model}}"),
            )
        )
        .with_panel(
            number(
                "Quality floor",
                "The lowest agreement with the dense model that the operator accepts.",
                RATIO,
                Query(MODEL.gauge("sluice_quality_floor_ratio"), "{{model}}"),
            )
        )
        .with_panel(
            number(
                "Profile stale",
                "Yes where the weights on disk are not those that the profile was measured on: the next start refuses "
                "them.",
                YES_NO,
                Query(MODEL.gauge("sluice_profile_stale"), "{{model}}"),
                steps=(0.5, 1),
            )
        )
    )


def _latency(board: Dashboard) -> Dashboard:
    tails = [
        Query(MODEL.gauge("sluice_tail_latency_seconds", where=(f'percentile="{percentile}"',)), f"{percentile} %")
        for percentile in PERCENTILES
    ]
    return (
        board.with_row(row("Latency"))
        .with_panel(
            lines(
                "Latency by percentile",
                "What 50, 95, 99 and 99.9 % of the last 10 s' requests stayed within, against the SLO (dashed).",
                SECONDS,
                [*tails, Query(MODEL.gauge("sluice_slo_latency_seconds", how="min"), "SLO", limit=True)],
            )
        )
        .with_panel(
            histogram(
                "Distribution of latency",
                "Requests that were computed, by the time from arrival to answer.",
                SECONDS,
                Query(MODEL.rate("sluice_request_duration_seconds_bucket", "le"), "{{le}}"),
            )
        )
        .with_panel(
            lines(
                "Where the time goes",
                "Mean time of a computed request: waiting for an executor, running the model, and in all.",
                SECONDS,
                [
                    Query(MODEL.mean_seconds("sluice_queue_duration_seconds"), "waiting"),
                    Query(MODEL.mean_seconds("sluice_compute_duration_seconds"), "running"),
                    Query(MODEL.mean_seconds("sluice_request_duration_seconds"), "in all"),
                ],
            )
        )
        .with_panel(shared.attainment(MODEL))
    )


def _text(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("Generated text, of a language model"))
        .with_panel(
            lines(
                "Time to the first token",
                "Mean of the generations that came to their end, against the SLO (dashed).",
                SECONDS,
                [
                    Query(MODEL.mean_seconds("sluice_first_token_duration_seconds"), "first token"),
                    Query(MODEL.gauge("sluice_slo_latency_seconds", how="min"), "SLO", limit=True),
                ],
                width=8,
            )
        )
        .with_panel(
            lines(
                "Time per token",
                "Mean of the generations that came to their end, of each its mean, against the SLO (dashed).",
                SECONDS,
                [
                    Query(MODEL.mean_seconds("sluice_token_duration_seconds"), "each further token"),
                    Query(MODEL.gauge("sluice_slo_token_seconds", how="min"), "SLO", limit=True),
                ],
                width=8,
            )
        )
        .with_panel(
            lines(
                "Tokens",
                "Tokens that were computed: of prompts, and generated.",
                PER_SECOND,
                [Query(MODEL.rate("sluice_tokens_total", "kind"), "{{kind}}")],
                width=8,
            )
        )
    )


def _gates(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("Gates and quality"))
        .with_panel(shared.level(MODEL, "instance", "{{instance}}"))
        .with_panel(shared.skip_rates(MODEL, "layer", "{{layer}}"))
        .with_panel(
            lines(
                "Threshold by layer",
                "A channel of the layer is active when its saliency is above this.",
                NUMBER,
                [Query(MODEL.gauge("sluice_gate_threshold", "layer", how="avg"), "{{layer}}")],
            )
        )
        .with_panel(shared.work_skipped(MODEL))
        .with_panel(shared.quality(MODEL))
        .with_panel(
            lines(
                "Shadow runs",
                "Gated requests that were run again dense when the server had time, by whether both agreed.",
                PER_SECOND,
                [Query(MODEL.rate("sluice_shadow_total", "agree"), "agree: {{agree}}")],
                stacked=True,
            )
        )
    )


def _load(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("Load"))
        .with_panel(
            shared.arrivals(
                Query(MODEL.rate("sluice_requests_total", "outcome, protocol"), "{{outcome}} ({{protocol}})"),
            )
        )
        .with_panel(
            shared.queue(
                Query(MODEL.gauge("sluice_queue_depth", "instance"), "{{instance}}: waiting"),
                Query(MODEL.gauge("sluice_inflight", "instance"), "{{instance}}: running"),
            )
        )
    )


def _server(board: Dashboard) -> Dashboard:
    return (
        board.with_row(row("The servers"))
        .with_panel(
            lines(
                "Executors given up",
                "Executors whose run hangs now, and those that were replaced because of it, per second.",
                NUMBER,
                [
                    Query(SERVERS.gauge("sluice_executors_hung", "instance"), "{{instance}}: hang"),
                    Query(SERVERS.rate("sluice_executors_replaced_total", "instance"), "{{instance}}: replaced"),
                ],
                width=8,
            )
        )
        .with_panel(
            lines(
                "CPU",
                "Cores that the server's process keeps busy.",
                NUMBER,
                [Query(SERVERS.rate("process_cpu_seconds_total", "instance"), "{{instance}}")],
                width=8,
            )
        )
        .with_panel(
            lines(
                "Memory",
                "Resident memory of the server's process.",
                BYTES,
                [Query(SERVERS.gauge("process_resident_memory_bytes", "instance"), "{{instance}}")],
                width=8,
            )
        )
    )
