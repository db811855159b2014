import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from loadtest.benchmarks import mlperf
from loadtest.benchmarks.mlperf import Bench, Durations, Trial, bench, compare, measure, report_table
from loadtest.benchmarks.mlperf_log import Verdict
from loadtest.benchmarks.mlperf_search import Search
from loadtest.benchmarks.slo_plan import Mode
from loadtest.driver import Address
from models.model import GateContext
from models.zoo.fashion_data import LabelledImages
from service.control.slo import SLO
from tests.live import serve
from tests.models.zoo.random_fashion import random_fashion
from tests.tiny_model import random_images

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed: pip install 'sluice-serve[mlperf]'")


@pytest.fixture
def model():
    return random_fashion()


@pytest.fixture
def data(model) -> LabelledImages:
    images = random_images(16)
    return LabelledImages(images, model.run({"image": images}, GateContext(0.0))["label"].astype(np.int64))


@pytest.fixture
def start(model, tmp_path):
    @contextmanager
    def start() -> Iterator[Address]:
        with serve([model], tmp_path, executors=1) as server:
            host, port = server.address.split(":")
            yield Address(host, int(port))

    return start


WIDE = SLO(60_000, 99, 0.0, shed=False)
DENSE = Mode("dense", WIDE, {"level": 0.0})


def test_the_verdict_is_loadgens(start, data):
    with start() as address, bench(address, DENSE, data, least_queries=500) as loadgen:
        trial = loadgen.performance(400, 1)
    assert trial.verdict.valid
    assert trial.verdict.rate == pytest.approx(400, rel=0.2)
    assert trial.client["queries"] >= 500
    assert (trial.client["failed"], trial.client["level"]) == (0, 0.0)
    assert 0 < trial.client["server_mean_ms"] <= trial.verdict.mean_ms


def test_of_few_queries_loadgen_is_not_sure(start, data):
    with start() as address, bench(address, DENSE, data, least_queries=1) as loadgen:
        trial = loadgen.performance(200, 0.2)
    assert trial.verdict.reasons == ("Early stopping",)
    assert not trial.verdict.valid


def test_accuracy_mode_asks_for_every_image(start, data):
    with start() as address, bench(address, DENSE, data, least_queries=1) as loadgen:
        accuracy, client = loadgen.accuracy(100)
    assert accuracy == 1
    assert client["queries"] == len(data)


def test_a_failure_is_a_miss_and_a_wrong_answer(start, data):
    refused = Mode("refused", SLO(100, 99, 0.0), {"level": 2.0})
    with start() as address, bench(address, refused, data, least_queries=500) as loadgen:
        trial = loadgen.performance(1000, 0.5)
        accuracy, client = loadgen.accuracy(1000)
    assert trial.verdict.reasons[0] == "Performance constraints"
    assert trial.verdict.p50_ms >= 200
    assert trial.client["failed"] == trial.client["queries"] >= 500
    assert (accuracy, client["failed"]) == (0, len(data))


def test_a_rate_that_fails_by_little_is_tried_again(start, data, monkeypatch):
    mode = Mode("dense", SLO(100, 99, 0.0), {"level": 0.0})
    search = [(100, 50, True), (150, 110, False), (150, 50, True), (225, 900, False)]
    runs = iter([*search, (225, 900, False), (150, 110, False), (100, 50, True)])
    tried = []

    def performance(_: Bench, rate: float, seconds: float) -> Trial:
        expected, p99_ms, valid = next(runs)
        tried.append((round(rate), seconds))
        assert round(rate) == expected
        return Trial(rate, seconds, Verdict(valid, rate, rate, 1.0, p99_ms, 1.0), {"failed": 0, "level": None})

    monkeypatch.setattr(Bench, "performance", performance)
    result = measure(mode, data, start, Durations(1, 2), Search(100.0, precision=1.5), lambda _: None)
    assert tried == [(100, 1), (150, 1), (150, 1), (225, 1), (225, 2), (150, 2), (100, 2)]
    assert (result.best.target_rate, result.best.seconds) == (pytest.approx(100), 2)


def test_the_whole_of_it(start, data, model, monkeypatch):
    """Rates are not looked at: the machine that runs the tests does other things too."""
    monkeypatch.setattr(mlperf.Search, "highest", lambda search, passes: (passes(search.start), search.start)[1])
    monkeypatch.setattr(mlperf.Search, "confirmed", lambda search, rate, passes: (passes(rate), rate)[1])
    heard = []
    comparison = compare(model.profile, data, start, Durations(0.1, 0.2, 0.2, least_queries=20), heard.append)
    assert comparison.dense.server == "dense" and comparison.free.server == "sluice"
    assert comparison.dense.accuracy == 1
    assert comparison.dense.best.client["level"] == 0
    assert comparison.slo.latency_ms == pytest.approx(6 * comparison.calibration.service_ms)
    assert list(dict.fromkeys(line.split()[0] for line in heard)) == [
        "Measuring",
        "dense,",
        "dense:",
        "sluice,",
        "sluice:",
    ]
    as_dict = json.loads(json.dumps(comparison.as_dict()))
    assert [server["server"] for server in as_dict["servers"]] == ["dense", "sluice"]
    assert as_dict["ratio"] > 0
    text = StringIO()
    Console(file=text, width=200).print(report_table(comparison))
    assert "× the dense rate" in text.getvalue()
