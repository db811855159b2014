"""`sluice simulate` from its arguments to its output: what is asked for is what is simulated."""

import json

import pytest
from typer.testing import CliRunner

from loadtest.simulation.model import straight_profile
from models.zoo import catalog
from service.cli import command_line

SHORT = ("--burst-seconds", "1", "--bursts", "1", "--noise", "0")


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.delenv("SLUICE_CONFIG", raising=False)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))


@pytest.fixture
def profile(tmp_path):
    """A sixth of the work at a quality of 0.9; with the defaults of the command, a quarter of the time."""
    straight_profile().save(tmp_path / "straight.json")
    return ("--profile", str(tmp_path / "straight.json"), "--dense-ms", "3")


@pytest.fixture
def trace(tmp_path):
    """Even arrivals for two seconds, at 60 % of what 3 ms a run allow."""
    path = tmp_path / "even.trace"
    path.write_text("".join(f"{index * 0.005:.4f}\n" for index in range(400)))
    return ("--trace", str(path))


def run(*arguments, status=0):
    result = CliRunner().invoke(command_line(), ("simulate", *arguments))
    assert result.exit_code == status, result.output
    return result.output


def found(*arguments):
    return json.loads(run(*arguments, "--json"))


def phases(result):
    return {phase["name"]: phase for phase in result["phases"]}


def test_bursts_cost_quality_and_calm_does_not(profile):
    result = found(*profile, *SHORT, "--peak", "2.5", "--quality-floor", "0.9")
    assert result["dense_ms"] == 3
    assert result["slo"]["latency_ms"] == pytest.approx(18)
    named = phases(result)
    assert sum(phase["arrivals"] for phase in named.values()) == result["total"]["arrivals"]
    assert named["burst"]["arrivals"] == pytest.approx(2.5 * 1000 / 3, rel=0.1)
    assert named["burst"]["level"] > 0.5
    assert named["calm"]["level"] < 0.1
    assert named["burst"]["quality"] < named["calm"]["quality"]


def test_the_same_seed_gives_the_same_result_and_another_does_not(profile):
    one = run(*profile, *SHORT, "--seed", "3", "--json")
    assert run(*profile, *SHORT, "--seed", "3", "--json") == one
    assert run(*profile, *SHORT, "--seed", "4", "--json") != one


def test_a_trace_is_replayed_as_it_is(profile, trace):
    result = found(*profile, *trace)
    assert result["total"]["arrivals"] == 400
    assert result["levels"] == [0, 0]
    assert result["total"]["attainment"] == 1


def test_the_floor_bounds_the_level(profile):
    load = ("--load", "8", "--peak", "8", *SHORT)
    at_floor = found(*profile, *load, "--quality-floor", "0.95")
    assert at_floor["total"]["level"] == pytest.approx(0.5, abs=0.02)
    assert at_floor["total"]["refused"] > 0
    assert found(*profile, *load, "--quality-floor", "1")["total"]["level"] == 0


def test_an_event_changes_the_slo(profile, trace):
    result = found(*profile, *trace, "--slo-ms", "100", "--event", "1:latency_ms=2")
    assert result["levels"][0] == 0
    assert result["levels"][1] > 0.3


def test_executors_share_the_load(profile, trace):
    slow = ("--profile", profile[1], "--dense-ms", "6", "--slo-ms", "36")
    assert found(*slow, *trace)["total"]["level"] > 0.1
    assert found(*slow, *trace, "--executors", "2")["total"]["level"] == 0


def test_the_refused_come_back_as_often_as_asked(profile):
    load = ("--load", "0.5", "--peak", "8", *SHORT)
    assert found(*profile, *load)["returns"]["arrivals"] == 0
    once = found(*profile, *load, "--returns", "1")
    assert once["returns"]["arrivals"] == once["total"]["refused"] > 0
    assert "returns" in run(*profile, *load, "--returns", "1")


def test_an_slo_that_cannot_be_met_is_said(profile, trace):
    assert found(*profile, *trace, "--slo-ms", "0.5")["slo_attainable"] is False
    assert "cannot be met" in run(*profile, *trace, "--slo-ms", "0.5")
    assert found(*profile, *trace)["slo_attainable"] is True
    assert "cannot be met" not in run(*profile, *trace)


def test_the_table_has_a_row_for_each_phase_and_for_all(profile):
    output = run(*profile, *SHORT)
    assert "99 % within 18 ms, quality at least 0.95" in output
    assert all(name in output for name in ("calm", "burst", "settling", "all"))


def test_without_times_a_real_model_is_measured(monkeypatch, model):
    monkeypatch.setattr(catalog, "load", lambda name, calibrations: model)
    result = found(*SHORT, "--load", "0.2", "--peak", "0.4")
    assert 0.01 < result["dense_ms"] < 1000
    assert result["slo"]["latency_ms"] == pytest.approx(6 * result["dense_ms"])
    # How many are in time depends on how noisy the machine was while it was measured.
    assert result["total"]["attainment"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dense-ms", "3", "--slo-ms", "-1"), "latency_ms"),
        (("--dense-ms", "3", "--event", "soon:latency_ms=5"), "an event is SECONDS:NAME=VALUE"),
        (("--dense-ms", "3", "--event", "1:latency_s=5"), "latency_s"),
        (("--dense-ms", "3", "--trace", "nowhere.trace"), "nowhere.trace"),
        (("--profile", "nowhere.json", "--dense-ms", "3"), "nowhere.json"),
        (("--profile", "nowhere.json"), "give --dense-ms too"),
        (("nobody",), "there is no model 'nobody'"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(arguments, message):
    output = run(*arguments, status=1)
    assert message in output
    assert "Traceback" not in output
