"""The metrics: what each family is, and where its value comes from.

What can only be known when a request ends is observed there, once (`RequestMetrics`, the engine's observer). Everything
else is state that the engine owns, and is read from it when Prometheus scrapes (`EngineCollector`): no gauge is set
anywhere, and a request pays for a few sums, of which the families are made at a scrape.

Units are seconds, ratios are 0 to 1, and shares are pairs of counters, so that they add up over servers. Labels are
bounded: models are those that are hosted, "" for any other name, and layers and outcomes are fixed sets.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from models import kernels
from service.control.generation_slo import GenerationSLO, Objective
from service.engine.observer import RequestOutcome
from service.engine.snapshot import Health, ModelSnapshot
from service.errors import Outcome
from service.telemetry.distribution import Distribution

BUCKETS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 25, 50, 100, 250, 500, 1000, 2500, 10_000)
"""Milliseconds. Dense where models run, 1 to 16 ms; an SLO that is changed at runtime cannot be an edge anyway."""


class RequestMetrics(Collector):
    """The families that count requests as they end; implements `service.engine.observer.Observer`.

    Both belong to the event loop's thread: `finished`, and `collect` at a scrape.

    >>> registry = CollectorRegistry()
    >>> metrics = RequestMetrics(registry)
    >>> metrics.finished(RequestOutcome("fashion", "v2", "refused", duration=0.001, slo_met=False))
    >>> registry.get_sample_value("sluice_slo_requests_total", {"model": "fashion", "met": "false"})
    1.0
    """

    def __init__(self, registry: CollectorRegistry, models: Iterable[str] = ()) -> None:
        """``models`` get their series at once, at 0: Prometheus does not see a counter's first step otherwise."""
        self._requests: dict[tuple[str, str, Outcome], int] = {}
        self._judged: dict[tuple[str, bool], int] = {}
        self._times: dict[str, _Times] = {}
        for model in models:
            self._requests |= {(model, "v2", outcome): 0 for outcome in get_args(Outcome)}
            self._judged |= {(model, True): 0, (model, False): 0}
        registry.register(self)

    def finished(self, outcome: RequestOutcome) -> None:
        kind = (outcome.model, outcome.protocol, outcome.outcome)
        self._requests[kind] = self._requests.get(kind, 0) + 1
        if outcome.slo_met is not None:
            judged = (outcome.model, outcome.slo_met)
            self._judged[judged] = self._judged.get(judged, 0) + 1
        if outcome.finished is not None:
            times = self._times.get(outcome.model)
            if times is None:
                times = self._times[outcome.model] = _Times()
            times.request.add(outcome.duration)
            times.queue.add(outcome.finished.queue_seconds)
            times.compute.add(outcome.finished.compute_seconds)
            if tokens := outcome.finished.tokens:
                times.first_token.add(tokens.first_token_seconds)
                if tokens.token_seconds is not None:
                    times.token.add(tokens.token_seconds)

    def totals(self, model: str) -> dict[str, int]:
        """The requests of a model so far: by outcome, and as "met" and "missed" those that were judged by an SLO."""
        totals: dict[str, int] = dict.fromkeys(get_args(Outcome), 0)
        for (name, _, outcome), count in self._requests.items():
            if name == model:
                totals[outcome] += count
        met, missed = self._judged.get((model, True), 0), self._judged.get((model, False), 0)
        return totals | {"met": met, "missed": missed}

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "sluice_requests",
            "Requests that ended, by how. An empty model is a name that is not hosted.",
            labels=("model", "protocol", "outcome"),
        )
        for kind, count in self._requests.items():
            requests.add_metric(kind, count)
        judged = CounterMetricFamily(
            "sluice_slo_requests",
            "Requests judged with the SLO in force when they arrived. A refused or expired request has not met it.",
            labels=("model", "met"),
        )
        for (model, met), count in self._judged.items():
            judged.add_metric((model, "true" if met else "false"), count)
        duration = HistogramMetricFamily(
            "sluice_request_duration_seconds",
            "From a request's arrival to its answer, of requests that were computed.",
            labels=("model",),
        )
        queue = HistogramMetricFamily(
            "sluice_queue_duration_seconds", "What a computed request waited for an executor.", labels=("model",)
        )
        compute = HistogramMetricFamily(
            "sluice_compute_duration_seconds", "What the model ran for a request.", labels=("model",)
        )
        first_token = HistogramMetricFamily(
            "sluice_first_token_duration_seconds",
            "From the arrival of a generation that came to its end to its first token.",
            labels=("model",),
        )
        token = HistogramMetricFamily(
            "sluice_token_duration_seconds",
            "The mean time of each further token, of a generation that came to its end.",
            labels=("model",),
        )
        for model, times in self._times.items():
            for family, part in ((duration, times.request), (queue, times.queue), (compute, times.compute)):
                family.add_metric((model,), part.buckets(), part.sum)
            # Of language models alone.
            for family, part in ((first_token, times.first_token), (token, times.token)):
                if part.count:
                    family.add_metric((model,), part.buckets(), part.sum)
        yield from (requests, judged, duration, queue, compute, first_token, token)


def _distribution() -> Distribution:
    return Distribution([milliseconds / 1e3 for milliseconds in BUCKETS])


@dataclass(frozen=True, slots=True)
class _Times:
    """Of one model's requests."""

    request: Distribution = field(default_factory=_distribution)
    queue: Distribution = field(default_factory=_distribution)
    compute: Distribution = field(default_factory=_distribution)
    first_token: Distribution = field(default_factory=_distribution)
    token: Distribution = field(default_factory=_distribution)


class EngineCollector(Collector):
    """The families that show the engine's state, read at each scrape. Loading a model again resets its counters."""

    def __init__(self, models: Callable[[], Iterable[tuple[ModelSnapshot, Objective]]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        models = tuple(self._models())
        yield from objective(models)
        yield from work(models)
        yield from gates(models)
        yield from load(models)
        yield from generation(models)


Models = Iterable[tuple[ModelSnapshot, Objective]]


def objective(models: Models) -> Iterator[Metric]:
    """The SLO in force, and the tail that it is about."""
    latency = GaugeMetricFamily(
        "sluice_slo_latency_seconds", "The SLO's latency; of a language model, to the first token.", labels=("model",)
    )
    percentile = GaugeMetricFamily(
        "sluice_slo_percentile_ratio", "The share of requests that the SLO wants within its latency.", labels=("model",)
    )
    floor = GaugeMetricFamily(
        "sluice_quality_floor_ratio", "The lowest quality that the operator accepts.", labels=("model",)
    )
    attainable = GaugeMetricFamily(
        "sluice_slo_attainable",
        "0 where one request alone on the server would miss the SLO even at the highest level that is allowed, else 1.",
        labels=("model",),
    )
    tail = GaugeMetricFamily(
        "sluice_tail_latency_seconds",
        "Latency of the requests of the last 10 s at a percentile (of generations, to the first token); absent after"
        " 10 s without any.",
        labels=("model", "percentile"),
    )
    for model, slo in models:
        latency.add_metric((model.name,), slo.latency)
        percentile.add_metric((model.name,), slo.percentile / 100)
        floor.add_metric((model.name,), slo.quality_floor)
        attainable.add_metric((model.name,), float(model.gate.slo_attainable))
        for name, seconds in model.tail_seconds.items():
            tail.add_metric((model.name, name), seconds)
    yield from (latency, percentile, floor, attainable, tail)


def work(models: Models) -> Iterator[Metric]:
    """What was there to do and what was skipped. Shadow runs stay out of these."""
    channels = CounterMetricFamily("sluice_channels", "Channels that requests met.", labels=("model", "layer"))
    channels_skipped = CounterMetricFamily(
        "sluice_channels_skipped", "Channels that requests met and that were not computed.", labels=("model", "layer")
    )
    macs = CounterMetricFamily(
        "sluice_macs", "Multiply-accumulates that the dense model would have done.", labels=("model",)
    )
    macs_skipped = CounterMetricFamily(
        "sluice_macs_skipped", "Multiply-accumulates of the dense model that were not done.", labels=("model",)
    )
    for model, _ in models:
        for name, layer in model.gate.layers.items():
            channels.add_metric((model.name, name), layer.channels)
            channels_skipped.add_metric((model.name, name), layer.channels_skipped)
        macs.add_metric((model.name,), model.macs)
        macs_skipped.add_metric((model.name,), model.macs_skipped)
    yield from (channels, channels_skipped, macs, macs_skipped)


def gates(models: Models) -> Iterator[Metric]:
    """Where the dial stands, how far it may go, and what live traffic says about that."""
    level = GaugeMetricFamily("sluice_gate_level_ratio", "The level that requests run at now.", labels=("model",))
    level_max = GaugeMetricFamily(
        "sluice_gate_level_max_ratio", "The highest level that the quality floor allows now.", labels=("model",)
    )
    quality = GaugeMetricFamily(
        "sluice_quality_expected_ratio",
        "What the profile expects of agreement with the dense model at the level now.",
        labels=("model",),
    )
    threshold = GaugeMetricFamily(
        "sluice_gate_threshold",
        "A layer's threshold at the level now: a channel is active when its saliency is above it.",
        labels=("model", "layer"),
    )
    shadow = CounterMetricFamily(
        "sluice_shadow",
        "Gated requests that were run again dense, by whether both agreed.",
        labels=("model", "agree"),
    )
    for model, _ in models:
        level.add_metric((model.name,), model.gate.level)
        level_max.add_metric((model.name,), model.gate.highest_level)
        quality.add_metric((model.name,), model.gate.expected_quality)
        for name, layer in model.gate.layers.items():
            threshold.add_metric((model.name, name), layer.threshold)
        shadow.add_metric((model.name, "true"), model.shadow_agreed)
        shadow.add_metric((model.name, "false"), model.shadow_disagreed)
    yield from (level, level_max, quality, threshold, shadow)


def load(models: Models) -> Iterator[Metric]:
    """What is waiting and what is running."""
    depth = GaugeMetricFamily(
        "sluice_queue_depth",
        "Requests that wait for an executor, and generations that wait for a place.",
        labels=("model",),
    )
    inflight = GaugeMetricFamily(
        "sluice_inflight", "Requests that executors are running, and generations that have a place.", labels=("model",)
    )
    for model, _ in models:
        depth.add_metric((model.name,), model.queue_depth)
        inflight.add_metric((model.name,), model.inflight)
    yield from (depth, inflight)


def generation(models: Models) -> Iterator[Metric]:
    """What language models make."""
    tokens = CounterMetricFamily(
        "sluice_tokens",
        "Tokens that a language model computed, by kind: of prompts, and generated, for clients that left too.",
        labels=("model", "kind"),
    )
    pace = GaugeMetricFamily(
        "sluice_slo_token_seconds", "The SLO's time per token, of a language model.", labels=("model",)
    )
    for model, slo in models:
        if model.generation is not None:
            tokens.add_metric((model.name, "prompt"), model.generation.prompt_tokens)
            tokens.add_metric((model.name, "generated"), model.generation.generated_tokens)
        if isinstance(slo, GenerationSLO):
            pace.add_metric((model.name,), slo.token)
    yield from (tokens, pace)


class ExecutorCollector(Collector):
    """The executors' health, read at each scrape."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        health = self._health()
        yield GaugeMetricFamily(
            "sluice_executors_hung",
            "Executors that were given up because their run hangs, and have not come back.",
            health.hung_executors,
        )
        yield CounterMetricFamily(
            "sluice_executors_replaced",
            "Executors that were ever given up and replaced because their run hung.",
            health.replaced_executors,
        )


class ProfileCollector(Collector):
    """Whether the profiles on disk still fit their weights, by model."""

    def __init__(self, stale: Callable[[], Mapping[str, bool]]) -> None:
        self._stale = stale

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "sluice_profile_stale",
            "1 where the weights on disk changed after the profile was measured, so that loading refuses them, else 0.",
            labels=("model",),
        )
        for model, stale in self._stale().items():
            family.add_metric((model,), float(stale))
        yield family


class BuildCollector(Collector):
    """Which program this is: its version, and the kernels' backend and instruction set."""

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "sluice_build",
            "The server's version, and what computes its gated layers.",
            {
                "version": version("sluice-serve"),
                "kernels": kernels.BACKEND,
                "instruction_set": kernels.instruction_set(),
            },
        )


def register_state(
    registry: CollectorRegistry,
    models: Callable[[], Models],
    health: Callable[[], Health],
    stale_profiles: Callable[[], Mapping[str, bool]],
) -> None:
    """Adds what is read at scrape time: the engine's state and health, whether profiles fit their weights, the build,
    and the process's CPU, memory and files.
    """
    registry.register(EngineCollector(models))
    registry.register(ExecutorCollector(health))
    registry.register(ProfileCollector(stale_profiles))
    registry.register(BuildCollector())
    ProcessCollector(registry=registry)
