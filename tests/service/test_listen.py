import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.listen import Server, config_of
from service.settings import load_settings
from tests.live import START_SECONDS
from tests.service.engine.fakes import FakeModel
from tests.service.engine.harness import Held

INFER = "/v2/models/fake/infer"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [-1.0]}]}


@pytest.fixture
def held(tmp_path):
    """(the held work, the server, a client, the server's thread); one executor."""
    work = Held()
    settings = load_settings(home=tmp_path, executors=1, slo_latency_ms=20_000.0, grace_seconds=5.0, port=0)
    app = create_app(settings, [FakeModel(work=work)])
    server = Server(config_of(app, settings.host, settings.port, settings.grace_seconds), app.state.drain)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=20) as client:
        yield work, server, client, thread
    work.free.set()
    server.should_exit = True
    thread.join(START_SECONDS)


def test_a_stop_finishes_what_is_inside_and_answers_what_is_new(held):
    work, server, client, thread = held
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.post, INFER, json=BODY)
        assert work.begun.wait(5)
        waiting = pool.submit(client.post, INFER, json=BODY)
        until_metric(client, 'sluice_queue_depth{model="fake"} 1.0')
        server.handle_exit(signal.SIGTERM, None)
        until_status(client, "/v2/health/ready", 503)
        assert client.get("/v2/health/live").status_code == 200
        refused = client.post(INFER, json=BODY)
        assert refused.status_code == 503
        assert "stopping" in refused.json()["error"]
        assert not running.done() and not waiting.done()
        work.free.set()
        for request in (running, waiting):
            assert request.result().status_code == 200
            assert np.array(request.result().json()["outputs"][0]["data"]) == [-2.0]
    thread.join(5)
    assert not thread.is_alive()


def test_a_second_signal_does_not_wait(held):
    work, server, client, thread = held
    with ThreadPoolExecutor() as pool:
        running = pool.submit(client.post, INFER, json=BODY)
        assert work.begun.wait(5)
        server.handle_exit(signal.SIGTERM, None)
        until_status(client, "/v2/health/ready", 503)
        assert not server.should_exit
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit
        work.free.set()
        running.exception()
    thread.join(10)
    assert not thread.is_alive()


def until_status(client: httpx.Client, path: str, status: int) -> None:
    until = time.monotonic() + 5
    while client.get(path).status_code != status:
        assert time.monotonic() < until
        time.sleep(0.01)


def until_metric(client: httpx.Client, line: str) -> None:
    until = time.monotonic() + 5
    while line not in client.get("/metrics").text.splitlines():
        assert time.monotonic() < until
        time.sleep(0.01)
