"""What the console shows of a model at one moment, as plain JSON: one small call a second."""

from collections.abc import Mapping
from typing import Any

from service.control.generation_slo import Objective
from service.engine.snapshot import LastActive, LayerGate, ModelSnapshot

MOST_DRAWN = 1024
"""Channels of a layer; a vocabulary of fifty thousand is neither sent nor drawn once a second."""


def model_state(snapshot: ModelSnapshot, slo: Objective, totals: Mapping[str, int]) -> dict[str, Any]:
    """Latencies in milliseconds; levels, rates and qualities 0 to 1; `totals` count requests since the start.

    A layer's `active` lists the channels that the last request computed, None where the model does not tell or they are
    too many to draw. Its `skip_rate` is that of late, or where nothing came of late, of the last request if that tells.
    """
    gate = snapshot.gate
    return {
        "model": snapshot.name,
        "ready": snapshot.ready,
        "slo": slo.as_dict(),
        "tail_ms": {percentile: seconds * 1e3 for percentile, seconds in snapshot.tail_seconds.items()},
        "level": gate.level,
        "highest_level": gate.highest_level,
        "highest_reason": gate.highest_reason,
        "slo_attainable": gate.slo_attainable,
        "expected_quality": gate.expected_quality,
        "live_agreement": gate.live_agreement,
        "live_samples": gate.live_samples,
        "skip_rate": gate.skip_rate,
        "macs_skipped": gate.macs_skipped,
        "queue_depth": snapshot.queue_depth,
        "inflight": snapshot.inflight,
        "totals": dict(totals),
        "layers": [_layer(name, last, gate.layers.get(name)) for name, last in snapshot.last_active.items()],
    }


def _layer(name: str, last: LastActive, gate: LayerGate | None) -> dict[str, Any]:
    skip_rate = None if gate is None else gate.skip_rate
    if skip_rate is None and last.active is not None and last.channels:
        skip_rate = 1 - len(last.active) / last.channels
    drawn = last.active is not None and last.channels <= MOST_DRAWN
    return {
        "name": name,
        "skip_rate": skip_rate,
        "channels": last.channels,
        "active": last.active.tolist() if drawn and last.active is not None else None,
    }
