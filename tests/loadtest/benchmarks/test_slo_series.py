import numpy as np
import pytest

from loadtest.benchmarks.slo_series import series
from loadtest.curve import Span
from loadtest.summary import Sample
from loadtest.trace import Trace


def test_bins_of_half_a_second():
    trace = Trace("t", np.array([0.1, 0.2, 1.2]), (Span("all", 0, 1.5),))
    samples = [
        Sample(0.1, 0.1, 0.2, "ok", 0.25, 1.0),
        Sample(0.2, 0.2, 0.4, "ok", 0.75, 1.0),
        Sample(1.2, 1.2, 9.9, "refused"),
    ]
    found = series(trace, samples)
    assert found["seconds"] == [0.25, 0.75, 1.25]
    assert found["arrivals"] == [2, 0, 1]
    assert found["p99_ms"] == [pytest.approx(199), None, None]
    assert found["level"] == [0.5, None, None]


def test_nothing_served():
    trace = Trace("t", np.array([0.1]), (Span("all", 0, 1.0),))
    assert series(trace, [Sample(0.1, 0.1, 0.2, "error")])["p99_ms"] == [None, None]
