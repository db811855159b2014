from typing import get_args

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from models.model import GateContext
from service.control.generation_slo import GenerationSLO
from service.control.slo import SLO
from service.engine.observer import RequestOutcome
from service.engine.request import Finished, TokenTimes
from service.engine.snapshot import (
    Duration,
    GateSnapshot,
    GenerationSnapshot,
    Health,
    LayerGate,
    ModelSnapshot,
    Statistics,
)
from service.errors import Outcome
from service.telemetry.metrics import EngineCollector, ExecutorCollector, ProfileCollector, RequestMetrics
from tests.live import infer_body, serve

CONTRACT = {
    "sluice_requests_total": {"model", "protocol", "outcome"},
    "sluice_request_duration_seconds_bucket": {"model", "le"},
    "sluice_queue_duration_seconds_bucket": {"model", "le"},
    "sluice_compute_duration_seconds_bucket": {"model", "le"},
    "sluice_slo_requests_total": {"model", "met"},
    "sluice_slo_latency_seconds": {"model"},
    "sluice_slo_percentile_ratio": {"model"},
    "sluice_quality_floor_ratio": {"model"},
    "sluice_slo_attainable": {"model"},
    "sluice_tail_latency_seconds": {"model", "percentile"},
    "sluice_channels_total": {"model", "layer"},
    "sluice_channels_skipped_total": {"model", "layer"},
    "sluice_macs_total": {"model"},
    "sluice_macs_skipped_total": {"model"},
    "sluice_gate_level_ratio": {"model"},
    "sluice_gate_level_max_ratio": {"model"},
    "sluice_quality_expected_ratio": {"model"},
    "sluice_gate_threshold": {"model", "layer"},
    "sluice_shadow_total": {"model", "agree"},
    "sluice_queue_depth": {"model"},
    "sluice_inflight": {"model"},
    "sluice_executors_hung": set(),
    "sluice_executors_replaced_total": set(),
    "sluice_profile_stale": {"model"},
}
OF_LANGUAGE_MODELS = {
    "sluice_first_token_duration_seconds_bucket": {"model", "le"},
    "sluice_token_duration_seconds_bucket": {"model", "le"},
    "sluice_tokens_total": {"model", "kind"},
    "sluice_slo_token_seconds": {"model"},
}
NOTHING = Duration()


def finished(**changes: object) -> Finished:
    times = {"queue_seconds": 0.001, "compute_seconds": 0.004, "duration": 0.005, **changes}
    return Finished("1", {}, 0.5, 0.99, GateContext(0.5), slo_met=True, **times)


def snapshot(**changes: object) -> ModelSnapshot:
    gate = GateSnapshot(
        level=0.25,
        highest_level=0.75,
        highest_reason="",
        layers={"conv1": LayerGate(0.1, None, 10, 4), "conv2": LayerGate(0.2, 0.5, 20, 8)},
        expected_skip_rate=0.4,
        expected_quality=0.99,
        expected_quality_lower=0.98,
        live_agreement=None,
        live_samples=0,
        skip_rate=None,
        macs_skipped=None,
        slo_attainable=True,
        safety_margin=1.0,
    )
    known: dict[str, object] = {
        "name": "fashion",
        "version": "1",
        "ready": True,
        "gate": gate,
        "statistics": Statistics(0, 0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, 0),
        "macs": 1000,
        "macs_skipped": 600,
        "tail_seconds": {"50": 0.004, "99": 0.009},
        "shadow_agreed": 3,
        "shadow_disagreed": 1,
        "queue_depth": 5,
        "inflight": 2,
    }
    return ModelSnapshot(**{**known, **changes})


def test_one_request_is_counted_once_in_each_family():
    registry = CollectorRegistry()
    RequestMetrics(registry).finished(RequestOutcome("fashion", "v2", "ok", 0.005, True, finished()))
    value = registry.get_sample_value
    assert value("sluice_requests_total", {"model": "fashion", "protocol": "v2", "outcome": "ok"}) == 1
    assert value("sluice_slo_requests_total", {"model": "fashion", "met": "true"}) == 1
    assert value("sluice_request_duration_seconds_sum", {"model": "fashion"}) == 0.005
    assert value("sluice_queue_duration_seconds_sum", {"model": "fashion"}) == 0.001
    assert value("sluice_compute_duration_seconds_sum", {"model": "fashion"}) == 0.004


@pytest.mark.parametrize("outcome", [outcome for outcome in get_args(Outcome) if outcome != "ok"])
def test_what_was_not_computed_has_no_duration(outcome):
    registry = CollectorRegistry()
    met = False if outcome in ("refused", "expired", "error") else None
    RequestMetrics(registry).finished(RequestOutcome("fashion", "v2", outcome, 0.005, met))
    value = registry.get_sample_value
    assert value("sluice_requests_total", {"model": "fashion", "protocol": "v2", "outcome": outcome}) == 1
    assert value("sluice_slo_requests_total", {"model": "fashion", "met": "false"}) == (None if met is None else 1)
    assert value("sluice_request_duration_seconds_count", {"model": "fashion"}) is None


def test_the_lowest_bucket_is_a_quarter_of_a_millisecond():
    registry = CollectorRegistry()
    fast = finished(queue_seconds=0.0, compute_seconds=0.0002)
    RequestMetrics(registry).finished(RequestOutcome("fashion", "v2", "ok", 0.0002, True, fast))
    assert (
        registry.get_sample_value("sluice_compute_duration_seconds_bucket", {"model": "fashion", "le": "0.00025"}) == 1
    )


def test_hosted_models_start_at_zero():
    registry = CollectorRegistry()
    RequestMetrics(registry, ["fashion"])
    for outcome in get_args(Outcome):
        labels = {"model": "fashion", "protocol": "v2", "outcome": outcome}
        assert registry.get_sample_value("sluice_requests_total", labels) == 0
    assert registry.get_sample_value("sluice_slo_requests_total", {"model": "fashion", "met": "false"}) == 0


def test_state_is_read_at_each_scrape():
    now = [snapshot()]
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: [(model, SLO(20, 99.9, 0.97)) for model in now]))
    model = {"model": "fashion"}
    expected = {
        ("sluice_slo_latency_seconds",): 0.02,
        ("sluice_slo_percentile_ratio",): 0.999,
        ("sluice_quality_floor_ratio",): 0.97,
        ("sluice_slo_attainable",): 1,
        ("sluice_tail_latency_seconds", ("percentile", "99")): 0.009,
        ("sluice_channels_total", ("layer", "conv2")): 20,
        ("sluice_channels_skipped_total", ("layer", "conv2")): 8,
        ("sluice_macs_total",): 1000,
        ("sluice_macs_skipped_total",): 600,
        ("sluice_gate_level_ratio",): 0.25,
        ("sluice_gate_level_max_ratio",): 0.75,
        ("sluice_quality_expected_ratio",): 0.99,
        ("sluice_gate_threshold", ("layer", "conv1")): 0.1,
        ("sluice_shadow_total", ("agree", "true")): 3,
        ("sluice_shadow_total", ("agree", "false")): 1,
        ("sluice_queue_depth",): 5,
        ("sluice_inflight",): 2,
    }
    for (name, *labels), value in expected.items():
        assert registry.get_sample_value(name, {**model, **dict(labels)}) == pytest.approx(value), name
    now[0] = snapshot(queue_depth=0, tail_seconds={})
    assert registry.get_sample_value("sluice_queue_depth", model) == 0
    assert registry.get_sample_value("sluice_tail_latency_seconds", {**model, "percentile": "99"}) is None


def test_a_generation_shows_its_two_times_and_its_tokens():
    registry = CollectorRegistry()
    times = TokenTimes(prompt_tokens=7, generated_tokens=3, first_token_seconds=0.2, token_seconds=0.03)
    done = finished(duration=0.26, tokens=times)
    metrics = RequestMetrics(registry)
    metrics.finished(RequestOutcome("smollm2", "openai", "ok", 0.26, True, done))
    metrics.finished(RequestOutcome("fashion", "v2", "ok", 0.005, True, finished()))
    registry.register(
        EngineCollector(
            lambda: [
                (snapshot(name="smollm2", generation=GenerationSnapshot(70, 30)), GenerationSLO(1000, 80)),
                (snapshot(), SLO(20)),
            ]
        )
    )
    value, model = registry.get_sample_value, {"model": "smollm2"}
    assert value("sluice_first_token_duration_seconds_sum", model) == 0.2
    assert value("sluice_token_duration_seconds_sum", model) == 0.03
    assert value("sluice_request_duration_seconds_sum", model) == 0.26
    assert value("sluice_tokens_total", {**model, "kind": "prompt"}) == 70
    assert value("sluice_tokens_total", {**model, "kind": "generated"}) == 30
    assert (value("sluice_slo_latency_seconds", model), value("sluice_slo_token_seconds", model)) == (1, 0.08)
    found = {
        sample.name for family in registry.collect() for sample in family.samples if "fashion" in sample.labels.values()
    }
    assert not found & set(OF_LANGUAGE_MODELS)


def test_the_executors_health_is_read_at_each_scrape():
    now = [Health(True, (), hung_executors=0, replaced_executors=0)]
    registry = CollectorRegistry()
    registry.register(ExecutorCollector(lambda: now[0]))
    assert registry.get_sample_value("sluice_executors_hung") == 0
    assert registry.get_sample_value("sluice_executors_replaced_total") == 0
    now[0] = Health(True, ("1 run(s) hang",), hung_executors=1, replaced_executors=3)
    assert registry.get_sample_value("sluice_executors_hung") == 1
    assert registry.get_sample_value("sluice_executors_replaced_total") == 3


def test_stale_profiles_show_by_model():
    registry = CollectorRegistry()
    registry.register(ProfileCollector(lambda: {"fashion": True, "other": False}))
    assert registry.get_sample_value("sluice_profile_stale", {"model": "fashion"}) == 1
    assert registry.get_sample_value("sluice_profile_stale", {"model": "other"}) == 0


def test_a_known_mix_of_requests_shows_on_metrics(model, images, tmp_path):
    infer = "/v2/models/fashion/infer"
    with serve([model], tmp_path, slo_latency_ms=10_000, shadow_share=0.0) as server:
        for level in (0.0, 1.0, 1.0):
            assert server.http.post(infer, json=infer_body(images[:4], level=level)).status_code == 200
        assert server.http.post(infer, json=infer_body(images[:1], slo_ms=1e-6, level=0.0)).status_code in (200, 503)
        assert server.http.post(infer, json={"inputs": []}).status_code == 400
        assert server.http.post(infer, content=b"{").status_code == 400
        assert server.http.post("/v2/models/made-up/infer", json=infer_body(images[:1])).status_code == 404
        samples = server.metrics()

    contexts = [GateContext(level) for level in (0.0, 1.0, 1.0)]
    for context in contexts:
        model.run({"image": images[:4]}, context)
    requests = 'sluice_requests_total{model="%s",outcome="%s",protocol="v2"}'
    assert samples[requests % ("fashion", "invalid")] == 2
    assert samples[requests % ("", "invalid")] == 1
    late = samples[requests % ("fashion", "expired")] + samples[requests % ("fashion", "refused")]
    assert samples[requests % ("fashion", "ok")] + late == 4
    assert not any("made-up" in name for name in samples)
    assert samples['sluice_slo_requests_total{met="true",model="fashion"}'] == 3
    assert samples['sluice_slo_requests_total{met="false",model="fashion"}'] == 1
    # The fourth request, if it ran at all, ran dense.
    computed = 4 - late
    assert samples['sluice_request_duration_seconds_count{model="fashion"}'] == computed
    fourth = GateContext(0.0)
    if computed == 4:
        model.run({"image": images[:1]}, fourth)
    done = [*contexts, fourth]
    assert samples['sluice_macs_total{model="fashion"}'] == sum(context.macs for context in done)
    assert samples['sluice_macs_skipped_total{model="fashion"}'] == sum(context.macs_skipped for context in done)
    for layer in model.profile.points[0].thresholds:
        work = [context.layers[layer] for context in done if layer in context.layers]
        labels = f'{{layer="{layer}",model="fashion"}}'
        assert samples[f"sluice_channels_total{labels}"] == sum(one.channels for one in work)
        assert samples[f"sluice_channels_skipped_total{labels}"] == sum(one.skipped for one in work)
        assert f"sluice_gate_threshold{labels}" in samples
    assert samples['sluice_tail_latency_seconds{model="fashion",percentile="99"}'] > 0


def test_the_contract(server, images):
    server.http.post("/v2/models/fashion/infer", json=infer_body(images[:1]))
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    found: dict[str, set[str]] = {}
    for family in parse_text(response.text):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT
    assert "process_cpu_seconds_total" in found
    assert "sluice_build_info" in found


def test_openmetrics_for_those_who_ask(server):
    response = server.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "sluice_requests" in {family.name for family in parse_openmetrics(response.text)}


def test_percentiles_are_of_what_clients_saw(server, images):
    for _ in range(5):
        server.http.post("/v2/models/fashion/infer", json=infer_body(images))
    samples = server.metrics()
    tail = [
        samples[f'sluice_tail_latency_seconds{{model="fashion",percentile="{p}"}}'] for p in ("50", "95", "99", "99.9")
    ]
    assert tail == sorted(tail)
    assert np.all(np.array(tail) < 10)
