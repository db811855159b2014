"""The page of all metrics, made from the registry: `python -m service.telemetry.reference` writes METRICS.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from models.model import GateContext
from service.control.generation_slo import GenerationSLO
from service.engine.observer import RequestOutcome
from service.engine.request import Finished, TokenTimes
from service.engine.snapshot import (
    TAIL_PERCENTILES,
    Duration,
    GateSnapshot,
    GenerationSnapshot,
    Health,
    LayerGate,
    ModelSnapshot,
    Statistics,
)
from service.telemetry.metrics import RequestMetrics, register_state

PAGE = Path(__file__).parent / "METRICS.md"
HEAD = """# Metrics

`GET /metrics` answers in the Prometheus text format, or in OpenMetrics where that is asked for. Units are seconds,
ratios are 0 to 1, and shares are pairs of counters, so that they add up over servers. An empty `model` is a name that
is not hosted. On Linux there are also `process_cpu_seconds_total`, `process_resident_memory_bytes` and their kind.

`prometheus/recording.yml` records what is asked most (SLO attainment, skip rate, MACs skipped, error budget left),
`prometheus/alerts.yml` says when somebody should look, and `grafana/dashboards/` shows it.

`python -m service.telemetry.reference` makes this page.

| metric | type | labels | meaning | example |
|---|---|---|---|---|
"""
EXAMPLES = {
    "sluice_requests_total": "sum by (outcome) (rate(sluice_requests_total[1m]))",
    "sluice_slo_requests_total": 'sum(rate(sluice_slo_requests_total{met="true"}[1m])) '
    "/ sum(rate(sluice_slo_requests_total[1m]))",
    "sluice_slo_latency_seconds": 'sluice_tail_latency_seconds{percentile="99"} '
    "/ on (job, instance, model) sluice_slo_latency_seconds",
    "sluice_slo_percentile_ratio": "1 - sluice_slo_percentile_ratio",
    "sluice_quality_floor_ratio": "sluice_quality_expected_ratio - sluice_quality_floor_ratio",
    "sluice_slo_attainable": "min by (model) (sluice_slo_attainable)",
    "sluice_tail_latency_seconds": 'max by (model) (sluice_tail_latency_seconds{percentile="99.9"})',
    "sluice_channels_total": "sum by (layer) (rate(sluice_channels_total[1m]))",
    "sluice_channels_skipped_total": "sum by (layer) (rate(sluice_channels_skipped_total[1m])) "
    "/ sum by (layer) (rate(sluice_channels_total[1m]))",
    "sluice_macs_total": "sum by (model) (rate(sluice_macs_total[1m]))",
    "sluice_macs_skipped_total": "sum(rate(sluice_macs_skipped_total[1m])) / sum(rate(sluice_macs_total[1m]))",
    "sluice_gate_level_ratio": "avg by (model) (sluice_gate_level_ratio)",
    "sluice_gate_level_max_ratio": "sluice_gate_level_max_ratio - sluice_gate_level_ratio",
    "sluice_quality_expected_ratio": "min by (model) (sluice_quality_expected_ratio)",
    "sluice_gate_threshold": "avg by (model, layer) (sluice_gate_threshold)",
    "sluice_shadow_total": 'sum(increase(sluice_shadow_total{agree="true"}[1h])) '
    "/ sum(increase(sluice_shadow_total[1h]))",
    "sluice_queue_depth": "sum by (model) (sluice_queue_depth)",
    "sluice_inflight": "sum by (model) (sluice_inflight)",
    "sluice_request_duration_seconds": "histogram_quantile(0.99, "
    "sum by (model, le) (rate(sluice_request_duration_seconds_bucket[1m])))",
    "sluice_queue_duration_seconds": "rate(sluice_queue_duration_seconds_sum[1m]) "
    "/ rate(sluice_queue_duration_seconds_count[1m])",
    "sluice_compute_duration_seconds": "histogram_quantile(0.5, "
    "sum by (model, le) (rate(sluice_compute_duration_seconds_bucket[1m])))",
    "sluice_first_token_duration_seconds": "histogram_quantile(0.99, "
    "sum by (model, le) (rate(sluice_first_token_duration_seconds_bucket[1m])))",
    "sluice_token_duration_seconds": "histogram_quantile(0.99, "
    "sum by (model, le) (rate(sluice_token_duration_seconds_bucket[1m])))",
    "sluice_tokens_total": 'sum by (model) (rate(sluice_tokens_total{kind="generated"}[1m]))',
    "sluice_slo_token_seconds": "histogram_quantile(0.99, sum by (model, le) (rate("
    "sluice_token_duration_seconds_bucket[1m]))) / on (model) sluice_slo_token_seconds",
    "sluice_executors_hung": "sum(sluice_executors_hung)",
    "sluice_executors_replaced_total": "increase(sluice_executors_replaced_total[1h])",
    "sluice_profile_stale": "max by (model) (sluice_profile_stale)",
    "sluice_build_info": "count by (version, instruction_set) (sluice_build_info)",
}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as a query names it; a histogram without `_bucket`, `_sum` and `_count`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def families() -> Iterator[Family]:
    """Every metric that the server exposes, but for those of its process."""
    for metric in _registry().collect():
        if metric.name.startswith("sluice_"):
            yield _family(metric)


def page() -> str:
    """The text of METRICS.md. Raises KeyError for a metric without an example."""
    rows = (
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels) or 'none'} "
        f"| {family.meaning} | `{EXAMPLES[family.name]}` |"
        for family in sorted(families(), key=lambda family: family.name)
    )
    return HEAD + "\n".join(rows) + "\n"


def _family(metric: Metric) -> Family:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
    return Family(metric.name + suffix, metric.type, tuple(sorted(labels)), metric.documentation)


def _registry() -> CollectorRegistry:
    """All families, with a model and a request of which each has a sample: its labels are read from that."""
    registry = CollectorRegistry()
    times = TokenTimes(1, 2, 0.0, 0.0)
    finished = Finished("", {}, 0.5, 0.99, GateContext(0.5), 0.0, 0.0, 0.0, slo_met=True, tokens=times)
    RequestMetrics(registry, ["example"]).finished(RequestOutcome("example", "v2", "ok", 0, True, finished))
    snapshot = _snapshot()
    register_state(
        registry,
        lambda: [(snapshot, GenerationSLO(1000, 80))],
        lambda: Health(True, (), 0, 0),
        lambda: {snapshot.name: False},
    )
    return registry


def _snapshot() -> ModelSnapshot:
    nothing = Duration()
    return ModelSnapshot(
        name="example",
        version="1",
        ready=True,
        gate=GateSnapshot(
            level=0,
            highest_level=1,
            highest_reason="",
            layers={"layer": LayerGate(0, None, 0, 0)},
            expected_skip_rate=0,
            expected_quality=1,
            expected_quality_lower=1,
            live_agreement=None,
            live_samples=0,
            skip_rate=None,
            macs_skipped=None,
            slo_attainable=True,
            safety_margin=1,
        ),
        statistics=Statistics(0, 0, nothing, nothing, nothing, nothing, nothing, nothing, 0),
        macs=0,
        macs_skipped=0,
        tail_seconds=dict.fromkeys(TAIL_PERCENTILES, 0.0),
        shadow_agreed=0,
        shadow_disagreed=0,
        queue_depth=0,
        inflight=0,
        generation=GenerationSnapshot(0, 0),
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
