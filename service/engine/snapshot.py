"""What the engine shows of a hosted model: plain values, taken under its lock, that nobody changes afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TAIL_PERCENTILES = ("50", "95", "99", "99.9")


@dataclass(frozen=True, slots=True)
class Duration:
    """A number of events and the nanoseconds that they took in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since the model was loaded, as the protocol's statistics extension has it.

    `inference_count` counts items (a batch of 8 is 8), `execution_count` runs of the model; `compute_input` is parsing
    and checking, `compute_output` handing the outputs back to the event loop.
    """

    inference_count: int
    execution_count: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    last_inference_ms: int
    """Milliseconds since the epoch; 0 before the first."""


@dataclass(frozen=True, slots=True)
class LayerGate:
    """`threshold` at the level now; `skip_rate` over the recent window (None where nothing ran); the counts since the
    model was loaded.
    """

    threshold: float
    skip_rate: float | None
    channels: int
    channels_skipped: int


@dataclass(frozen=True, slots=True)
class GateSnapshot:
    """The dial of a model. Levels, rates and qualities are 0 to 1.

    `level` is the mean of the recent decisions (pinned levels are not decisions), or what a request would get now if
    there were none. `highest_level` and `highest_reason` say how far it may go. Expected values are the profile's at
    `level`; `live_agreement` is that of the shadow runs and None before the first. `skip_rate` and `macs_skipped` are
    of the recent window, None where nothing ran. `slo_attainable` is false where one request alone on the server, at
    the highest allowed level, would miss the SLO.
    """

    level: float
    highest_level: float
    highest_reason: str
    layers: Mapping[str, LayerGate]
    expected_skip_rate: float
    expected_quality: float
    expected_quality_lower: float
    live_agreement: float | None
    live_samples: int
    skip_rate: float | None
    macs_skipped: float | None
    slo_attainable: bool
    safety_margin: float


@dataclass(frozen=True, slots=True)
class LastActive:
    """The number of a layer's channels, and those that were active for the last image of the last request; None where
    the model does not tell."""

    channels: int
    active: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class GenerationSnapshot:
    """Of a language model: tokens since it was loaded, of prompts that were computed and of generated text."""

    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """Everything that metrics read of a model at scrape time. Counts are since the model was loaded.

    `tail_seconds` holds the latency (of generations, the time to the first token) at each of `TAIL_PERCENTILES` over
    the last 10 s, and nothing when no request was served in them.
    """

    name: str
    version: str
    ready: bool
    gate: GateSnapshot
    statistics: Statistics
    macs: int
    macs_skipped: int
    tail_seconds: Mapping[str, float]
    shadow_agreed: int
    shadow_disagreed: int
    queue_depth: int
    inflight: int
    last_active: Mapping[str, LastActive] = field(default_factory=dict)
    """What the last run computed, by layer."""
    generation: GenerationSnapshot | None = None
    """None for a model that is no language model."""


@dataclass(frozen=True, slots=True)
class Health:
    """`ready`: started, not stopping, every hosted model loaded. `faults` are sentences for the operator, none when all
    is well.

    `hung_executors` are those that were given up and have not come back; `replaced_executors` all that ever were.
    """

    ready: bool
    faults: tuple[str, ...]
    hung_executors: int
    replaced_executors: int
