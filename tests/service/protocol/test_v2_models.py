import pytest

from models.model import TensorSpec
from service.engine.snapshot import Health
from service.protocol.v2_models import model_config
from tests.service.protocol.fakes import ToyModel

VERSIONED = ["/v2/models/toy", "/v2/models/toy/versions/1"]
MODEL_PATHS = ["", "/ready", "/config", "/stats"]


async def test_health(client, engine):
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True, "faults": []}
    engine.ready = False
    assert (await client.get("/v2/health/live")).status_code == 200
    response = await client.get("/v2/health/ready")
    assert response.status_code == 503
    assert "model 'toy' is loading" in response.json()["error"]


async def test_a_server_whose_executor_hangs_is_ready_and_says_so(client, engine, monkeypatch):
    monkeypatch.setattr(engine, "health", lambda: Health(True, ("1 run(s) hang past 30 s",), 1, 1))
    response = await client.get("/v2/health/ready")
    assert (response.status_code, response.json()["faults"]) == (200, ["1 run(s) hang past 30 s"])


async def test_server_metadata(client):
    metadata = (await client.get("/v2")).json()
    assert (metadata["name"], metadata["version"]) == ("sluice", "1.2.3")
    assert {
        "binary_tensor_data",
        "statistics",
        "model_configuration",
        "model_repository",
        "schedule_policy",
        "parameters",
    } <= set(metadata["extensions"])


@pytest.mark.parametrize("path", VERSIONED)
async def test_model_metadata(client, path):
    assert (await client.get(path)).json() == {
        "name": "toy",
        "versions": ["1"],
        "platform": "sluice_toy",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 2, 3]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("path", VERSIONED)
async def test_model_ready(client, engine, path):
    assert (await client.get(f"{path}/ready")).status_code == 200
    engine.ready = False
    response = await client.get(f"{path}/ready")
    assert response.status_code == 503
    assert "toy" in response.json()["error"]


@pytest.mark.parametrize("path", VERSIONED)
async def test_config(client, path):
    assert (await client.get(f"{path}/config")).json() == {
        "name": "toy",
        "platform": "sluice_toy",
        "backend": "sluice",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 4,
        "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": [2, 3], "optional": False}],
        "output": [
            {"name": "scores", "data_type": "TYPE_FP32", "dims": [4]},
            {"name": "label", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
        ],
        "parameters": {},
    }


def test_config_of_a_model_that_does_not_batch():
    class Text(ToyModel):
        inputs = (TensorSpec("text", "BYTES", (1,)),)

    config = model_config(Text())
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": (1,), "optional": False}]
    assert config["output"][0]["dims"] == (-1, 4)


@pytest.mark.parametrize("path", ["/v2/models/stats", *(f"{path}/stats" for path in VERSIONED)])
async def test_statistics(client, path):
    (statistics,) = (await client.get(path)).json()["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("toy", "1")
    assert (statistics["inference_count"], statistics["execution_count"]) == (3, 2)
    zero = {"count": 0, "ns": 0}
    assert statistics["inference_stats"] == {
        "success": {"count": 2, "ns": 5000},
        "fail": zero,
        "queue": zero,
        "compute_input": zero,
        "compute_infer": {"count": 2, "ns": 4000},
        "compute_output": zero,
        "cache_hit": zero,
        "cache_miss": zero,
    }


@pytest.mark.parametrize("path", MODEL_PATHS)
async def test_unknown_models_and_versions(client, path):
    for prefix in ("/v2/models/nope", "/v2/models/nope/versions/1", "/v2/models/toy/versions/2"):
        response = await client.get(prefix + path)
        assert response.status_code == 404
        assert "nope" in response.json()["error"] or "version" in response.json()["error"]


@pytest.mark.parametrize("path", MODEL_PATHS)
async def test_a_model_that_is_not_loaded_is_unavailable(client, engine, path):
    engine.loaded = False
    response = await client.get(f"/v2/models/toy{path}")
    assert response.status_code == 503
    assert "toy" in response.json()["error"]
