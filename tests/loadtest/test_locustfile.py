"""Locust changes how Python's sockets wait, so it runs in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from loadtest.shapes import Load
from tests.live import serve
from tests.tiny_model import tiny_model

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"


def locust(address: str, summary: Path, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    given = {
        "host": f"http://{address}",
        "shape": "spike",
        "rate": "20",
        "seed": "3",
        "summary": str(summary),
        **options,
    }
    flat = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    environment = {**os.environ, "PYTHONPATH": str(LOCUSTFILE.parents[1])}
    return subprocess.run([*command, *flat], capture_output=True, text=True, timeout=60, env=environment)


def test_headless(tmp_path):
    result = tmp_path / "result.json"
    with serve([tiny_model()], tmp_path, slo_latency_ms=5000) as server:
        done = locust(server.address, result, seconds="1.5", slo_event="0.5:latency_ms=4000")
        assert done.returncode == 0, done.stderr
        counted = server.metrics()['sluice_requests_total{model="fashion",outcome="ok",protocol="v2"}']
        assert server.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 4000
    summary = json.loads(result.read_text())
    arrivals = len(Load("spike", rate=20, seconds=1.5, seed=3).trace().times)
    assert summary["outcomes"] == {"ok": arrivals}
    assert counted == arrivals
    assert set(summary["phases"]) == {"before", "spike", "after"}


def test_a_change_of_the_slo_that_the_server_refuses_ends_the_test(tmp_path):
    with serve([tiny_model()], tmp_path, slo_latency_ms=5000, admin_token="correct horse") as server:
        done = locust(server.address, tmp_path / "result.json", seconds="30", slo_event="0.3:latency_ms=4000")
    assert done.returncode == 2
    assert "could not be changed" in done.stderr
    assert "401" in done.stderr
