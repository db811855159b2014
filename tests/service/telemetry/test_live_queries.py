"""A real Prometheus reads a real server under load, and is asked everything that the dashboards and rules ask."""

import math
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from service.telemetry.reference import EXAMPLES
from tests.live import LiveServer, infer_body, serve
from tests.service.engine.fake_generator import FakeGenerator
from tests.service.telemetry.test_dashboards import DASHBOARDS, PANELS, variables
from tests.service.telemetry.test_metrics import OF_LANGUAGE_MODELS
from tests.service.telemetry.test_prometheus import PROMETHEUS, rules

pytestmark = pytest.mark.slow
if shutil.which("prometheus") is None:
    pytest.skip("NO PROMETHEUS: no query is run here; apt-get install prometheus", allow_module_level=True)

BOUND_SECONDS = 60
FILLED = {"$__rate_interval": "4s", "$job": "sluice", "$instance": ".+", "$model": "fashion"}
SETTINGS = {"slo_latency_ms": 500, "shadow_share": 1.0, "quality_floor": 0.0, "shed": False}
IMPOSSIBLE = {"slo_ms": 0.01}
"""Takes the level as high as it goes, which is what shadow runs check."""
TARGETS = [
    pytest.param(target, id=f"{panel.id} {target['refId']}")
    for panel in PANELS
    for target in panel.values[0]["targets"]
]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Asked as Grafana asks it: about the time from `start` to `end`, while there was load."""

    http: httpx.Client
    start: float
    end: float

    def get(self, path: str, **parameters: object) -> object:
        response = self.http.get(f"/api/v1/{path}", params=parameters)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def values(self, expression: str, *, instant: bool) -> list[float]:
        """Every value of every series that the filled-in expression gives."""
        if instant:
            result = self.get("query", query=filled(expression), time=self.end)["result"]
            return [float(series["value"][1]) for series in result]
        result = self.get("query_range", query=filled(expression), start=self.start, end=self.end, step=1)["result"]
        return [float(value) for series in result for _, value in series["values"]]


def filled(text: str) -> str:
    of_text = any(name.removesuffix("_bucket") in text for name in OF_LANGUAGE_MODELS)
    for name, value in (FILLED | ({"$model": "talker"} if of_text else {})).items():
        text = text.replace(name, value)
    assert "$" not in text
    return text


@contextmanager
def prometheus_of(server: LiveServer, folder: Path) -> Iterator[httpx.Client]:
    """The committed configuration and rules, on a server of the test's and with a quicker beat."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.address]
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as http:
            yield http
    finally:
        process.kill()
        process.wait()


@contextmanager
def load_on(server: LiveServer, images) -> Iterator[None]:
    """Requests at several levels, an invalid one and a generation, one after the other, until the block ends."""
    over = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=server.http.base_url, timeout=30) as http:
            while not over.is_set():
                for parameters in ({}, {"level": 0.4}, IMPOSSIBLE):
                    http.post("/v2/models/fashion/infer", json=infer_body(images[:1], **parameters))
                http.post("/v2/models/fashion/infer", content=b"{")
                http.post("/v1/completions", json={"model": "talker", "prompt": "Hi"})
                over.wait(0.02)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {BOUND_SECONDS} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def prometheus(model, images, tmp_path_factory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        serve([model, FakeGenerator(name="talker")], folder, **SETTINGS) as server,
        prometheus_of(server, folder) as http,
        load_on(server, images),
    ):

        def has(expression: str) -> bool:
            return bool(http.get("/api/v1/query", params={"query": expression}).json()["data"]["result"])

        wait_until(lambda: ready(http), "the start of Prometheus")
        start = time.time()
        wait_until(lambda: has("job_model:sluice_shadow_disagreed:ratio_rate5m"), "a shadow run")
        server.http.patch("/v2/models/fashion/slo", json={"latency_ms": 400}).raise_for_status()
        wait_until(lambda: has(f"changes(sluice_slo_latency_seconds[{BOUND_SECONDS}s]) > 0"), "the new SLO")
        wait_until(lambda: has("count_over_time(job_instance_model:sluice_slo_requests:rate5m[1m]) > 3"), "a rule")
        time.sleep(1.5)  # so that a step of a range query lies behind the change
        yield Prometheus(http, start, time.time())


def test_the_server_is_scraped(prometheus):
    assert prometheus.values('up{job="sluice"}', instant=True) == [1]


@pytest.mark.parametrize("target", TARGETS)
def test_every_query_of_every_panel_returns_data(prometheus, target):
    values = prometheus.values(target["expr"], instant=target["instant"])
    assert any(math.isfinite(value) for value in values), filled(target["expr"])


@pytest.mark.parametrize("metric", EXAMPLES)
def test_every_example_of_the_page_of_metrics_returns_data(prometheus, metric):
    values = prometheus.values(EXAMPLES[metric], instant=True)
    assert any(math.isfinite(value) for value in values)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_the_annotation_marks_the_change_of_the_slo(prometheus, dashboard):
    (annotation,) = dashboard["annotations"]["list"]
    assert max(prometheus.values(annotation["expr"], instant=False)) >= 1


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_every_variable_offers_something(prometheus, dashboard):
    for name, variable in variables(dashboard).items():
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            assert prometheus.get(f"label/{label}/values", **{"match[]": filled(series)}), name


@pytest.mark.parametrize("record", [rule["record"] for rule in rules("recording.yml")])
def test_every_recording_rule_returns_data(prometheus, record):
    values = prometheus.values(record, instant=True)
    assert values
    assert all(math.isfinite(value) for value in values)


def test_every_rule_is_evaluated_without_an_error(prometheus):
    found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found if rule["health"] == "ok"} == {
        *(rule["record"] for rule in rules("recording.yml")),
        *(rule["alert"] for rule in rules("alerts.yml")),
    }
