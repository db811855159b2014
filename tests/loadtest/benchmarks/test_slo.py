from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from loadtest.benchmarks.slo import Comparison, compare, show
from loadtest.benchmarks.slo_plan import Plan
from loadtest.driver import Address
from models.model import GateContext
from models.zoo.fashion_data import LabelledImages
from tests.live import serve
from tests.models.zoo.random_fashion import random_fashion
from tests.tiny_model import random_images

NAMES = ["sluice", "dense", "dense + admission", "always at the floor"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    """The whole benchmark on a model with random weights, whose labels are what it says when it is dense."""
    model, images = random_fashion(), random_images(16)
    data = LabelledImages(images, model.run({"image": images}, GateContext(0.0))["label"].astype(np.int64))

    @contextmanager
    def start() -> Iterator[Address]:
        with serve([model], tmp_path_factory.mktemp("home"), executors=1) as server:
            host, port = server.address.split(":")
            yield Address(host, int(port))

    plan = Plan((2.0,), bursts=1, burst_seconds=0.2, calibration_seconds=0.2, warm_up_seconds=0.1)
    return compare(plan, model.profile, data, start)


def test_every_server_meets_the_same_arrivals(comparison):
    runs = comparison.as_dict()["runs"]
    assert [run["server"] for run in runs] == NAMES
    for run in runs:
        assert run["arrivals"] == len(comparison.runs[0].trace.times)
        assert sum(run["outcomes"].values()) == run["arrivals"]


def test_modes_are_what_they_say(comparison):
    ours, dense, admission, floored = comparison.runs
    assert {sample.level for run in (dense, admission) for sample in run.samples if sample.level is not None} == {0.0}
    assert dense.summary["quality"] == 1
    assert dense.summary["outcomes"] == {"ok": len(dense.samples)}
    assert floored.summary["level"] == pytest.approx(comparison.floor.level, abs=1e-6)
    assert max(sample.level or 0 for sample in ours.samples) <= comparison.floor.level + 1e-6


def test_the_slo_is_a_multiple_of_the_dense_service_time(comparison):
    assert comparison.slo.latency_ms == pytest.approx(6 * comparison.calibration.service_ms)
    assert comparison.calibration.capacity > 1


def test_the_table_has_every_server(comparison):
    text = StringIO()
    show(comparison, Console(file=text, width=200))
    for name in NAMES:
        assert name in text.getvalue()


def test_the_plot(comparison, tmp_path):
    pytest.importorskip("matplotlib")
    from loadtest.benchmarks.slo_plot import plot

    plot(comparison, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert drawn.startswith("<?xml")
