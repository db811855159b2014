from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from loadtest.benchmarks.contender import Contender, Start
from loadtest.benchmarks.journal import Journal
from loadtest.benchmarks.slo import compare
from loadtest.benchmarks.slo_plan import Plan
from loadtest.benchmarks.slo_report import report_tables
from loadtest.benchmarks.slo_subject import images_of
from loadtest.driver import Address
from loadtest.processes import ServerFailed
from loadtest.workload import Images
from models.model import GateContext
from models.zoo.fashion_data import LabelledImages
from tests.live import serve
from tests.models.zoo.random_fashion import random_fashion
from tests.tiny_model import random_images

OURS = ["sluice", "dense", "dense + admission", "always at the floor"]
PEERS = ["not installed", "never starts"]
PLAN = Plan(
    (2.0,), bursts=1, burst_seconds=0.2, calibration_seconds=0.2, warm_up_seconds=0.1, check_seconds=0.1, repeats=0
)
MODEL = random_fashion()
IMAGES = random_images(16)
DATA = LabelledImages(IMAGES, MODEL.run({"image": IMAGES}, GateContext(0.0))["label"].astype(np.int64))
"""The labels are what the model says when it is dense."""
SUBJECT = images_of(MODEL.profile, DATA, PLAN.floor_points)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Start:
    @contextmanager
    def started() -> Iterator[Address]:
        with serve([MODEL], tmp_path_factory.mktemp("home"), executors=1) as server:
            host, port = server.address.split(":")
            yield Address(host, int(port))

    return started


@contextmanager
def fails() -> Iterator[Address]:
    raise ServerFailed("the server ended with status 1:\nTraceback\nit [ran] out of paper")
    yield


def cannot(_: Any) -> None:
    raise ServerFailed("no package index")


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("journal") / "results" / "slo.jsonl"


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def comparison(start, journal, said) -> dict[str, Any]:
    """The whole benchmark on a model with random weights, beside peers that fail."""
    peers = [
        Contender("not installed", start, Images(DATA), prepare=cannot),
        Contender("never starts", fails, Images(DATA)),
    ]
    return compare(PLAN, SUBJECT, start, peers, said.append, Journal(journal))


def result(comparison: dict[str, Any], server: str) -> dict[str, Any]:
    (found,) = [run for run in comparison["runs"] if run["server"] == server]
    return found


def test_every_server_meets_the_same_arrivals(comparison):
    assert [run["server"] for run in comparison["runs"]] == [*OURS, *PEERS]
    arrivals = len(PLAN.trace(comparison["capacity"], 2.0).times)
    for run in comparison["runs"][: len(OURS)]:
        assert run["arrivals"] == arrivals
        assert sum(run["outcomes"].values()) == arrivals


def test_modes_are_what_they_say(comparison):
    ours, dense, admission, floored = (result(comparison, name) for name in OURS)
    floor = comparison["floor"]["level"]
    for run in (dense, admission):
        assert {level for level in run["series"]["level"] if level is not None} == {0.0}
    assert (dense["quality"], dense["outcomes"]) == (1, {"ok": dense["arrivals"]})
    assert floored["level"] == pytest.approx(floor, abs=1e-6)
    assert max(level or 0 for level in ours["series"]["level"]) <= floor + 1e-6


def test_the_slo_is_a_multiple_of_the_dense_service_time(comparison):
    assert comparison["slo"]["latency_ms"] == pytest.approx(6 * comparison["service_ms"])
    assert comparison["capacity"] > 1
    assert result(comparison, "dense")["alone_ms"] > 0


def test_the_speed_of_the_machine_is_measured_around_every_run(comparison):
    speeds = [result(comparison, name)["speed"] for name in OURS]
    assert all(speed > 0 for pair in speeds for speed in pair)
    assert [after for _, after in speeds[:-1]] == [before for before, _ in speeds[1:]]


def test_a_server_that_fails_is_in_the_result_with_its_reason(comparison):
    assert result(comparison, "not installed")["failed"] == "no package index"
    assert "out of paper" in result(comparison, "never starts")["failed"]
    text = StringIO()
    for table in report_tables(comparison):
        Console(file=text, width=250).print(table)
    for expected in (*OURS, *PEERS, "no package index", "it [ran] out of paper"):
        assert expected in text.getvalue()


def test_it_says_what_it_will_do_and_how_long_that_takes(comparison, said):
    assert "6 servers" in "\n".join(said)
    assert [line.split(",")[0] for line in said if line[0].isdigit() and "/" in line] == [
        f"{number}/6 {name}" for number, name in enumerate((*OURS, *PEERS), 1)
    ]


def test_a_benchmark_that_broke_off_goes_on(comparison, journal, start):
    lines = journal.read_bytes().splitlines(keepends=True)
    broken = journal.with_name("broken.jsonl")
    broken.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    said: list[str] = []
    again = compare(PLAN, SUBJECT, start, (), said.append, Journal(broken, resume=True))
    assert [line for line in said if "/1 " in line] == [line for line in said if "always at the floor" in line]
    assert [run["server"] for run in again["runs"]] == OURS
    assert again["capacity"] == comparison["capacity"]
    assert result(again, "sluice") == result(comparison, "sluice")
    assert Journal(broken, resume=True).runs == again["runs"]


def test_failures_are_tried_again_and_other_plans_are_refused(comparison, journal):
    kept = Journal(journal, resume=True)
    assert [run["server"] for run in kept.runs] == OURS
    other = {"model": "fashion", **Plan((3.0,)).as_dict()}
    with pytest.raises(ValueError, match="another plan"):
        kept.begin(other, dict)
    fresh = Journal(journal.with_name("fresh.jsonl"), resume=True)
    assert fresh.begin(other, dict) == {"plan": other}


def test_the_plot(comparison, tmp_path):
    pytest.importorskip("matplotlib")
    from loadtest.benchmarks.slo_plot import plot

    plot(comparison, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.startswith("<?xml")
