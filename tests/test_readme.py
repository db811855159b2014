"""The README's requests do what it says, against a running server."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.live import LiveServer

README = (Path(__file__).parent.parent / "README.md").read_text()


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_request_for_curl(server: LiveServer):
    code = re.search(r"<<'PYTHON'\n(.*?)\nPYTHON\n", README, re.S)
    assert code is not None
    # As curl sends it: a form's content type, which the protocol's clients do not care about either.
    answer = server.http.post(
        "/v2/models/fashion/infer",
        content=python(code[1]),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ).json()
    assert len(answer["outputs"][0]["data"]) == 3
    documented = set(re.findall(r"`(\w+)`", README.split("| parameter of the answer |")[1].split("\n\n")[0]))
    assert documented == set(answer["parameters"])


def test_the_triton_client(server: LiveServer):
    code = re.search(r"```python\n(.*?)```", README, re.S)
    assert code is not None
    assert "macs_skipped" in python(code[1].replace("127.0.0.1:8000", server.address))


def test_changing_the_slo(server: LiveServer):
    change = re.search(r"-X PATCH http://127.0.0.1:8000(\S+) -d '(.*)'", README)
    assert change is not None
    before = server.http.get(change[1]).json()
    try:
        assert (
            server.http.patch(change[1], content=change[2]).json()["latency_ms"] == json.loads(change[2])["latency_ms"]
        )
    finally:
        server.http.put(change[1], json=before)
