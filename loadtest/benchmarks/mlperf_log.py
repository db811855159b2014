"""What MLPerf LoadGen wrote down: the verdict in its summary, the answers in its accuracy log."""

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUMMARY, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_accuracy.json"
_WRONG = -1


@dataclass(frozen=True, slots=True)
class Verdict:
    """LoadGen's own: `valid` is its "Result is", `rate` the Poisson rate that it scheduled, latencies milliseconds from
    the scheduled time, `reasons` the conditions that were not met."""

    valid: bool
    rate: float
    completed: float
    p50_ms: float
    p99_ms: float
    mean_ms: float
    reasons: tuple[str, ...] = ()


def need_loadgen() -> None:
    """Raises `ModuleNotFoundError` where LoadGen is not installed. It runs in another process, and much later."""
    if find_spec("mlperf_loadgen") is None:
        raise ModuleNotFoundError("MLPerf LoadGen is not installed")


def read_verdict(folder: Path) -> Verdict:
    """Raises `RuntimeError` where LoadGen came to no verdict, or speaks of errors."""
    path = folder / SUMMARY
    text = path.read_text() if path.exists() else ""
    if "No errors encountered during test." not in text:
        raise RuntimeError(f"LoadGen did not end well:\n{text[-500:]}")
    conditions = re.findall(r"^ +(.+?) satisfied ?: (\w+)$", text, re.M)
    return Verdict(
        _field(text, "Result is") == "VALID",
        float(_field(text, "Scheduled samples per second")),
        float(_field(text, "Completed samples per second")),
        float(_field(text, "50.00 percentile latency (ns)")) / 1e6,
        float(_field(text, "99.00 percentile latency (ns)")) / 1e6,
        float(_field(text, "Mean latency (ns)")) / 1e6,
        tuple(name for name, satisfied in conditions if satisfied != "Yes"),
    )


def read_accuracy(folder: Path, labels: NDArray[np.int64]) -> float:
    """The share of `labels` [n] that the accuracy log has right; what it does not have is wrong. Raises
    `RuntimeError`."""
    try:
        entries = json.loads((folder / ACCURACY).read_text())
    except (OSError, ValueError) as error:
        raise RuntimeError(f"LoadGen left no accuracy log: {error}") from None
    found = np.full(len(labels), _WRONG, np.int64)
    for entry in entries:
        found[entry["qsl_idx"]] = int.from_bytes(bytes.fromhex(entry["data"]), "little", signed=True)
    return float((found == labels).mean())


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)} *: (.+)$", text, re.M)
    if found is None:
        raise RuntimeError(f"LoadGen's summary has no {name!r}")
    return found[1].strip()
