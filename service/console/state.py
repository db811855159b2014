"""What the console shows of a model at one moment, as plain JSON: one small call a second."""

from collections.abc import Mapping
from typing import Any

from service.control.generation_slo import Objective
from service.engine.snapshot import ModelSnapshot


def model_state(snapshot: ModelSnapshot, slo: Objective, totals: Mapping[str, int]) -> dict[str, Any]:
    """Latencies in milliseconds; levels, rates and qualities 0 to 1; `totals` count requests since the start.

    A layer's `active` lists the channels that the last request computed, None where the model does not tell.
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
        "layers": [
            {
                "name": name,
                "skip_rate": gate.layers[name].skip_rate if name in gate.layers else None,
                "channels": last.channels,
                "active": None if last.active is None else last.active.tolist(),
            }
            for name, last in snapshot.last_active.items()
        ],
    }
