import re
from pathlib import Path

import pytest

from service.console.charts import SCRIPTS, vega_folder
from tests.live import LiveServer, infer_body, serve
from tests.tiny_model import tiny_model

STATIC = Path(__file__).parents[3] / "service" / "console" / "static"


def test_the_page_needs_nothing_from_elsewhere(server: LiveServer):
    response = server.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    for text in [response.text, *(file.read_text() for file in STATIC.iterdir())]:
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_everything_that_the_page_loads_is_there(server: LiveServer):
    page = server.http.get("/").text
    loaded = re.findall(r'(?:src|href)="(console/[^"]+)"', page)
    assert len(loaded) >= 4 + len(SCRIPTS)
    for path in loaded:
        response = server.http.get(f"/{path}")
        assert response.status_code == (200 if "vega" not in path or vega_folder() else 404), path
        if response.status_code == 200:
            again = server.http.get(f"/{path}", headers={"If-None-Match": response.headers["etag"]})
            assert again.status_code == 304


def test_the_state_follows_a_request(server: LiveServer, images):
    before = server.http.get("/console/state/fashion").json()
    answer = server.http.post("/v2/models/fashion/infer", json=infer_body(images[:1], level=1.0)).json()
    after = server.http.get("/console/state/fashion").json()
    assert after["totals"]["ok"] == before["totals"]["ok"] + 1
    assert after["totals"]["met"] == before["totals"]["met"] + 1
    assert after["slo"] == server.http.get("/v2/models/fashion/slo").json()
    channels = sum(layer["channels"] for layer in after["layers"])
    active = sum(len(layer["active"]) for layer in after["layers"])
    assert 1 - active / channels == pytest.approx(answer["parameters"]["skip_rate"])


def test_an_unknown_model_is_a_clear_error(server: LiveServer):
    for path in ("/console/state/nobody", "/console/samples/nobody"):
        response = server.http.get(path)
        assert response.status_code == 404
        assert "nobody" in response.json()["error"]


def test_the_samples_are_inputs_of_the_model(server: LiveServer):
    samples = server.http.get("/console/samples/fashion").json()
    assert len(samples) == 20
    assert {len(sample["pixels"]) for sample in samples} == {4 * ((28 * 28 + 2) // 3)}


def test_the_console_can_be_switched_off(tmp_path):
    with serve([tiny_model()], tmp_path, console=False) as live:
        assert live.http.get("/").status_code == 404
        assert live.http.get("/console/static/style.css").status_code == 404
        assert live.http.get("/v2/health/live").status_code == 200
