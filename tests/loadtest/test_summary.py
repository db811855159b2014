import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.curve import Span
from loadtest.script import Event, Script
from loadtest.summary import Sample, figures, summarise
from loadtest.trace import Trace
from service.control.slo import SLO

SLO_10 = Script(SLO(10))


def served(scheduled: float, latency: float, level: float = 0.0, score: float | None = 1.0) -> Sample:
    return Sample(scheduled, scheduled, scheduled + latency, "ok", level, score)


def lost(scheduled: float, outcome: str, latency: float = 0.001) -> Sample:
    return Sample(scheduled, scheduled, scheduled + latency, outcome)


def test_every_arrival_counts():
    samples = [served(0, 0.005), served(1, 0.02), lost(2, "refused"), lost(3, "error"), lost(4, "timeout", math.nan)]
    result = figures(samples, SLO_10.at)
    assert result["arrivals"] == 5
    assert result["attainment"] == pytest.approx(1 / 5)
    assert result["outcomes"] == {"ok": 2, "refused": 1, "error": 1, "timeout": 1}


def test_quality_is_that_of_the_answers_and_only_of_those_with_labels():
    samples = [served(0, 0.001, score=1), served(1, 0.001, score=0), served(2, 0.001, score=None), lost(3, "refused")]
    assert figures(samples, SLO_10.at)["quality"] == 0.5
    assert figures([lost(0, "error")], SLO_10.at)["quality"] is None
    assert figures([], SLO_10.at)["attainment"] is None


def test_a_clump_moves_the_mean_of_the_levels_and_not_their_median():
    samples = [served(0, 0.001, level) for level in (0.0, 0.0, 0.3)] + [lost(1, "refused")]
    result = figures(samples, SLO_10.at)
    assert result["level"] == pytest.approx(0.1)
    assert result["median_level"] == 0.0
    assert figures([lost(0, "error")], SLO_10.at)["median_level"] is None


def test_latency_counts_from_the_scheduled_time():
    waited = Sample(scheduled=1.0, sent=1.5, finished=1.501, outcome="ok")
    assert waited.latency == pytest.approx(0.501)
    assert not waited.met(SLO(400))


def test_an_arrival_is_judged_with_the_slo_in_force_when_it_was_due():
    script = SLO_10.with_events([Event(1, {"latency_ms": 30})])
    samples = [served(0.999, 0.02), served(1.0, 0.02)]
    assert figures(samples, script.at)["attainment"] == 0.5


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=300))
def test_percentiles_are_latencies_that_occurred_and_cover_their_share(latencies):
    samples = [served(0, latency) for latency in latencies]
    for name, value in figures(samples, SLO_10.at)["latency_ms"].items():
        within = sum(sample.latency * 1e3 <= value + 1e-9 for sample in samples)
        assert within >= float(name) / 100 * len(samples) - 1e-6
        assert any(sample.latency * 1e3 == pytest.approx(value) for sample in samples)


@given(st.lists(st.tuples(st.floats(0, 9.99), st.sampled_from(["ok", "refused", "error"])), min_size=1, max_size=60))
def test_phases_split_the_arrivals(arrivals):
    trace = Trace("t", np.array(sorted(time for time, _ in arrivals)), (Span("calm", 0, 4), Span("burst", 4, 10)))
    samples = [served(time, 0.001) if outcome == "ok" else lost(time, outcome) for time, outcome in arrivals]
    result = summarise(trace, samples, SLO_10.at)
    assert sum(phase["arrivals"] for phase in result["phases"].values()) == result["arrivals"] == len(samples)
    assert result["phases"]["burst"]["arrivals"] == sum(time >= 4 for time, _ in arrivals)
    assert sum(result["outcomes"].values()) == len(samples)


def test_the_client_tells_how_late_it_was():
    trace = Trace("t", np.array([1.0]), (Span("all", 0, 2),))
    result = summarise(trace, [Sample(1.0, 1.25, 1.3, "ok")], SLO_10.at)
    assert result["late_send_ms"]["50"] == pytest.approx(250)
