import json
import re
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.model import GateContext
from models.zoo import catalog
from service.cli import command_line
from service.commands import infer as infer_command
from tests.live import LiveServer, serve


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for name in ("SLUICE_URL", "SLUICE_ADMIN_TOKEN", "SLUICE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))


@pytest.fixture
def hosted_here(monkeypatch, model):
    """`sluice infer` without a server runs the tests' model, whether or not the trained one is installed."""
    monkeypatch.setattr(infer_command.catalog, "load", lambda name, calibrations: model)


@pytest.fixture
def array(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    return str(tmp_path / "images.npy")


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(command_line(), arguments)
    assert result.exit_code == status, result.output
    return result.output


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "models", "infer", "slo", "train", "tune", "calibrate", "quality", "simulate"),
        *("bench", "bench kernel", "bench slo", "bench mlperf"),
    ],
)
def test_every_command_explains_itself(command):
    assert f"{command} [OPTIONS]" in run(*command.split(), "--help")


def test_models():
    entries = json.loads(run("models", "--json"))
    assert entries[0]["name"] == "fashion"
    assert entries[0]["installed"] == (entries[0]["missing"] == "")
    assert "fashion" in run("models")


def test_infer_here(hosted_here, model, images, array):
    answer = json.loads(run("infer", "fashion", array, "--first", "2", "--count", "3", "--level", "1", "--json"))
    context = GateContext(1.0)
    expected = model.run({"image": images[2:5]}, context)
    names = model.outputs[0].labels
    assert [row[0]["label"] for row in answer["classes"]] == [names[label] for label in expected["label"]]
    assert answer["parameters"]["skip_rate"] == pytest.approx(context.skip_rate)
    assert "skipped" in run("infer", "fashion", array)


def test_infer_on_a_server_says_the_same(server: LiveServer, hosted_here, array):
    arguments = ("infer", "fashion", array, "--count", "4", "--level", "0.5", "--json")
    here = json.loads(run(*arguments))
    there = json.loads(run(*arguments, "--url", f"http://{server.address}"))
    assert here["classes"] == there["classes"]
    assert there["parameters"]["skip_rate"] == pytest.approx(here["parameters"]["skip_rate"], abs=1e-6)


def test_infer_takes_pictures(hosted_here, tmp_path, images, array):
    Image.fromarray(images[0]).save(tmp_path / "one.png")
    picture = json.loads(run("infer", "fashion", str(tmp_path / "one.png"), "--json"))
    assert picture["classes"] == json.loads(run("infer", "fashion", array, "--json"))["classes"]
    Image.fromarray(images[0]).convert("RGB").resize((100, 60)).save(tmp_path / "large.jpg")
    assert len(json.loads(run("infer", "fashion", str(tmp_path / "large.jpg"), "--json"))["classes"]) == 1


def test_infer_takes_idx_files(hosted_here, tmp_path, images, array):
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in images.shape)
    (tmp_path / "test-images-idx3-ubyte").write_bytes(header + images.tobytes())
    idx = run("infer", "fashion", str(tmp_path / "test-images-idx3-ubyte"), "--first", "5", "--json")
    assert json.loads(idx)["classes"] == json.loads(run("infer", "fashion", array, "--first", "5", "--json"))["classes"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"no picture", "cannot be read"),
        ("empty.npy", b"", "cannot be read"),
        ("cut-ubyte", b"\0\0\x08\x03\0\0\0\x01", "cannot be read"),
        ("other-ubyte", b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "unsigned bytes"),
    ],
)
def test_infer_says_what_is_wrong_with_a_file(hosted_here, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    output = run("infer", "fashion", str(tmp_path / name), status=1)
    assert "error" in output
    assert message in output.replace("\n", " ")


def test_infer_bounds(hosted_here, tmp_path, array):
    assert "none from number 64" in run("infer", "fashion", array, "--first", "64", status=1)
    run("infer", "fashion", array, "--level", "2", status=2)
    np.save(tmp_path / "wrong.npy", np.zeros((1, 20, 20), np.uint8))
    assert "28" in run("infer", "fashion", str(tmp_path / "wrong.npy"), status=1)
    assert "--url" in run("infer", "fashion", array, "--slo-ms", "5", status=1)


def test_an_unknown_model(array):
    assert "nothing" in run("infer", "nothing", array, status=1)


def test_slo(model, tmp_path):
    with serve([model], tmp_path) as server:
        url = ("--url", f"http://{server.address}")
        changed = json.loads(run("slo", "fashion", "--latency-ms", "7.5", "--no-shed", "--json", *url))
        assert (changed["latency_ms"], changed["shed"]) == (7.5, False)
        assert json.loads(run("slo", "fashion", "--json", *url)) == changed
        assert "7.5 ms" in run("slo", "fashion", *url)
        assert "percentile" in run("slo", "fashion", "--percentile", "101", *url, status=1)
        assert "nothing" in run("slo", "nothing", *url, status=1)


def test_slo_with_a_token(model, tmp_path):
    with serve([model], tmp_path, admin_token="correct horse") as server:
        arguments = ("slo", "fashion", "--latency-ms", "7.5", "--url", f"http://{server.address}")
        assert "Bearer" in run(*arguments, status=1)
        assert "7.5 ms" in run(*arguments, "--token", "correct horse")


def test_no_server():
    assert "sluice serve" in run("slo", "fashion", "--url", "http://127.0.0.1:9", status=1).replace("\n", " ")


def test_serve_says_what_is_wrong(tmp_path):
    assert "port" in run("serve", "--port", "70000", status=1)
    assert "nothing" in run("serve", "--model", "nothing", status=1)
    assert "nowhere.toml" in run("serve", "--config", str(tmp_path / "nowhere.toml"), status=1).replace("\n", "")


@pytest.mark.skipif(not catalog.available()[0].installed, reason="the trained weights are not installed")
def test_serve_as_a_process():
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    try:
        while (address := re.search(r"running on (http://\S+)", log)) is None:
            line = process.stderr.readline()
            assert line, log
            log += line
        with httpx.Client(base_url=address[1], timeout=10) as http:
            assert http.get("/v2/health/ready").status_code == 200
            assert "Sluice" in http.get("/").text
            assert http.get("/docs").status_code == 200
            assert "/v2/models/{model}/infer" in http.get("/openapi.json").json()["paths"]
    finally:
        process.send_signal(signal.SIGTERM)
        log += process.communicate(timeout=20)[1]
    assert "hosts fashion" in log
    assert "Traceback" not in log


@pytest.mark.skipif(not catalog.available()[0].installed, reason="the trained weights are not installed")
def test_serve_writes_its_log_as_json():
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    try:
        while not lines or (address := re.search(r"running on (http://[\d.:]+)", lines[-1]["message"])) is None:
            lines.append(json.loads(process.stderr.readline()))
        httpx.get(f"{address[1]}/v2/models/fashion", headers={"x-request-id": "mine"}, timeout=10).raise_for_status()
    finally:
        process.send_signal(signal.SIGTERM)
        lines += map(json.loads, process.communicate(timeout=20)[1].splitlines())
    (request,) = [line for line in lines if line.get("request_id")]
    assert (request["request_id"], request["path"], request["status"]) == ("mine", "/v2/models/fashion", 200)
