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


def test_headless(tmp_path):
    result = tmp_path / "result.json"
    with serve([tiny_model()], tmp_path, slo_latency_ms=5000) as server:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        options = {
            "--host": f"http://{server.address}",
            "--shape": "spike",
            "--rate": "20",
            "--seconds": "1.5",
            "--seed": "3",
            "--slo-event": "0.5:latency_ms=4000",
            "--summary": str(result),
        }
        flat = [part for option in options.items() for part in option]
        environment = {**os.environ, "PYTHONPATH": str(LOCUSTFILE.parents[1])}
        done = subprocess.run([*command, *flat], capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        counted = server.metrics()['sluice_requests_total{model="fashion",outcome="ok",protocol="v2"}']
        assert server.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 4000
    summary = json.loads(result.read_text())
    arrivals = len(Load("spike", rate=20, seconds=1.5, seed=3).trace().times)
    assert summary["outcomes"] == {"ok": arrivals}
    assert counted == arrivals
    assert set(summary["phases"]) == {"before", "spike", "after"}
