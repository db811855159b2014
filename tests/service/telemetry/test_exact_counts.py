"""A known mix of requests at the same time, on several models: every counter is exactly what it has to be."""

import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.live import LiveServer, serve
from tests.service.engine.fakes import MACS, FakeModel

EXECUTORS, QUEUE_LIMIT = 4, 6
HELD, BROKEN = -1.0, 13.0
OUTCOMES = ("ok", "refused", "expired", "cancelled", "invalid", "error")
OK = {"alpha": Counter({0.0: 40, 0.5: 30, 1.0: 30}), "beta": Counter({0.0: 25, 1.0: 50})}
"""How many at each level."""
OTHERS = Counter(
    {
        ("alpha", "expired"): 17,
        ("alpha", "invalid"): 11,
        ("alpha", "error"): 7,
        ("beta", "expired"): 5,
        ("beta", "invalid"): 13,
        ("beta", "error"): 3,
        ("gone", "refused"): 9,
        ("", "invalid"): 8,
    }
)
CANCELLED, REFUSED = EXECUTORS, 15


class Gate:
    """Holds the runs of inputs that ask for it until it is open, and breaks those that ask for that."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, value, context):
        if value == BROKEN:
            raise RuntimeError("broken")
        if value == HELD:
            assert self.open.wait(20)


def body(value: float = 1.0, items: int = 1, **parameters: object) -> dict[str, object]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [items, 1], "data": [value] * items}
    return {"inputs": [tensor], "parameters": parameters}


def path(model: str) -> str:
    return f"/v2/models/{model}/infer"


class Mix:
    """Sends requests and says which statuses they must have."""

    def __init__(self, server: LiveServer, gate: Gate) -> None:
        self.http, self.address, self.gate = server.http, server.address, gate
        self.metrics: Callable[[], dict[str, float]] = server.metrics

    def send(self, model: str, status: int, **options: object) -> None:
        assert self.http.post(path(model), json=body(**options)).status_code == status

    def spoil(self, model: str) -> None:
        assert self.http.post(path(model), content=b'{"inputs": 7}').status_code == 400

    def tasks(self) -> list[Callable[[], None]]:
        """All that need nothing but a free executor, in an order that mixes them."""
        kinds: dict[str, Callable[[str], Callable[[], None]]] = {
            "expired": lambda model: lambda: self.send(model, 503, timeout=1),
            "error": lambda model: lambda: self.send(model, 500, value=BROKEN, level=0.0),
            "refused": lambda model: lambda: self.send(model, 503),
            "invalid": lambda model: lambda: self.spoil(model),
        }
        tasks = [
            lambda model=model, level=level: self.send(model, 200, level=level, items=2)
            for model, levels in OK.items()
            for level in levels.elements()
        ]
        tasks += [kinds[outcome](model) for model, outcome in OTHERS.elements() if model]
        unknown = OTHERS["", "invalid"]
        tasks += [lambda number=number: self.send(f"unknown-{number}", 404) for number in range(unknown)]
        random.Random(0).shuffle(tasks)
        return tasks

    def leave(self, count: int) -> None:
        """Clients that close their connections while their requests run."""
        sockets = [self.connect(HELD) for _ in range(count)]
        self.until('sluice_inflight{model="beta"}', count)
        for one in sockets:
            one.close()
        self.until('sluice_requests_total{model="beta",outcome="cancelled",protocol="v2"}', count)

    def crowd(self, pool: ThreadPoolExecutor, refused: int) -> list[object]:
        """With every executor held and the queue full, others are refused at once; those inside are answered later."""
        inside = [pool.submit(self.send, "alpha", 200, level=0.0) for _ in range(QUEUE_LIMIT)]
        self.until('sluice_queue_depth{model="alpha"}', QUEUE_LIMIT)
        for one in [pool.submit(self.send, "alpha", 503, level=0.0) for _ in range(refused)]:
            one.result()
        return inside

    def connect(self, value: float) -> socket.socket:
        content = json.dumps(body(value, level=0.0)).encode()
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)))
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path("beta").encode(), len(content))
        )
        connection.sendall(content)
        return connection

    def until(self, sample: str, value: float) -> None:
        deadline = time.monotonic() + 10
        while self.metrics().get(sample) != value:
            assert time.monotonic() < deadline, f"{sample} is {self.metrics().get(sample)}, not {value}"
            time.sleep(0.005)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Iterator[dict[str, float]]:
    """What `/metrics` says after the mix, while it was scraped all the time."""
    gate, over = Gate(), threading.Event()
    models = [FakeModel(name=name, work=gate) for name in ("alpha", "beta", "gone")]
    settings = {"executors": EXECUTORS, "queue_limit": QUEUE_LIMIT, "slo_latency_ms": 60_000, "shadow_share": 0.0}
    with serve(models, tmp_path_factory.mktemp("home"), **settings) as server, ThreadPoolExecutor(32) as pool:
        mix = Mix(server, gate)
        server.http.post("/v2/repository/models/gone/unload").raise_for_status()

        def scrape() -> None:
            with httpx.Client(base_url=server.http.base_url) as http, suppress(httpx.TransportError):
                while not over.is_set():
                    http.get("/metrics").raise_for_status()

        scraper = pool.submit(scrape)
        # No more at once than the queue takes: none of these is to be refused.
        with ThreadPoolExecutor(QUEUE_LIMIT) as few:
            for one in [few.submit(task) for task in mix.tasks()]:
                one.result()
        mix.leave(CANCELLED)
        inside = mix.crowd(pool, REFUSED)
        gate.open.set()
        for one in inside:
            one.result()
        mix.until('sluice_inflight{model="beta"}', 0)
        over.set()
        scraper.result()
        yield server.metrics()


def expected(model: str) -> Counter:
    counts = Counter({outcome: OTHERS[model, outcome] for outcome in OUTCOMES})
    counts["ok"] = OK.get(model, Counter()).total()
    if model == "alpha":
        counts += Counter(ok=QUEUE_LIMIT, refused=REFUSED)
    if model == "beta":
        counts["cancelled"] += CANCELLED
    return counts


def labelled(samples: dict[str, float], name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by its labels' values, in the order of the labels' names."""
    pattern = re.compile(rf"{name}\{{(.*)\}}")
    found = {pattern.fullmatch(sample): value for sample, value in samples.items()}
    return {tuple(re.findall(r'"([^"]*)"', match[1])): value for match, value in found.items() if match}


def test_every_request_is_counted_once_by_how_it_ended(samples):
    found = {key: value for key, value in labelled(samples, "sluice_requests_total").items() if value}
    assert found == {
        (model, outcome, "v2"): count
        for model in ("alpha", "beta", "gone", "")
        for outcome, count in expected(model).items()
        if count
    }


def test_the_slo_judges_what_it_applies_to(samples):
    found = labelled(samples, "sluice_slo_requests_total")
    for model in ("alpha", "beta", "gone"):
        counts = expected(model)
        assert found["true", model] == counts["ok"], model
        assert found["false", model] == counts["refused"] + counts["expired"] + counts["error"], model
    assert ("true", "") not in found and ("false", "") not in found


@pytest.mark.parametrize("name", ["request", "queue", "compute"])
def test_histograms_hold_what_was_answered(samples, name):
    family = f"sluice_{name}_duration_seconds"
    for model in ("alpha", "beta"):
        buckets = {edge: count for (edge, of), count in labelled(samples, f"{family}_bucket").items() if of == model}
        counts = [buckets[edge] for edge in sorted(buckets, key=float)]
        assert counts == sorted(counts)
        assert counts[-1] == labelled(samples, f"{family}_count")[(model,)] == expected(model)["ok"]
        assert labelled(samples, f"{family}_sum")[(model,)] > 0
    assert ("gone",) not in labelled(samples, f"{family}_count")


def test_work_is_that_of_the_runs(samples):
    profile = FakeModel().profile
    for model, levels in OK.items():
        runs = Counter({level: 2 * count for level, count in levels.items()})
        # Of one image each: the crowd, and those whose clients left while they ran.
        runs[0.0] += QUEUE_LIMIT if model == "alpha" else CANCELLED
        requests = Counter(levels)
        requests[0.0] += QUEUE_LIMIT if model == "alpha" else CANCELLED
        gated = sum(count for level, count in requests.items() if level > 0)
        macs = sum(count * MACS for count in runs.values())
        skipped = sum(count * round(MACS * (1 - profile.at(level).macs_ratio)) for level, count in runs.items())
        assert labelled(samples, "sluice_macs_total")[(model,)] == macs
        assert labelled(samples, "sluice_macs_skipped_total")[(model,)] == skipped
        channels, left_out = (
            labelled(samples, "sluice_channels_total"),
            labelled(samples, "sluice_channels_skipped_total"),
        )
        assert channels["first", model] == 10 * requests.total()
        assert left_out["first", model] == 5 * gated
        assert channels["second", model] == 20 * requests.total()
        assert left_out["second", model] == 0


def test_nothing_is_left_inside(samples):
    for name in ("sluice_queue_depth", "sluice_inflight"):
        assert labelled(samples, name) == {("alpha",): 0, ("beta",): 0}


class Doubted(FakeModel):
    """Whose dense runs agree where its input is above 0."""

    def agreement(self, outputs, dense):
        return float(outputs["y"].flat[0] > 0)


def test_shadow_runs_are_counted_one_by_one_and_nowhere_else(tmp_path):
    settings = {"executors": 2, "slo_latency_ms": 60_000, "shadow_share": 1.0, "quality_floor": 0.5, "shed": False}
    tight, agreed, disagreed = {"slo_ms": 0.01}, 9, 4
    model = Doubted(name="doubted")
    with serve([model], tmp_path, **settings) as server:
        mix = Mix(server, Gate())
        done = Counter()
        for value in random.Random(1).sample([1.0, -1.0], counts=[agreed, disagreed], k=agreed + disagreed):
            mix.send("doubted", 200, value=value, **tight)
            done["true" if value > 0 else "false"] += 1
            for agree, count in done.items():
                mix.until(f'sluice_shadow_total{{agree="{agree}",model="doubted"}}', count)
        # Dense, pinned, and with a floor of its own: none of them says anything of the model's floor.
        for options in ({}, {"level": 1.0}, tight | {"quality_floor": 0.9}):
            for _ in range(3):
                mix.send("doubted", 200, **options)
        served = agreed + disagreed + 9
        samples = server.metrics()
    assert labelled(samples, "sluice_shadow_total") == {("true", "doubted"): agreed, ("false", "doubted"): disagreed}
    assert labelled(samples, "sluice_requests_total")["doubted", "ok", "v2"] == served
    assert labelled(samples, "sluice_macs_total") == {("doubted",): served * MACS}
    assert labelled(samples, "sluice_channels_total")["first", "doubted"] == 10 * served
    runs = [value for value, _ in model.ran if value]  # a warm-up is on zeros
    assert len(runs) == served + agreed + disagreed
