"""The server as the public Triton HTTP client sees it."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from models.model import GateContext, Model
from tests.live import LiveServer


@pytest.fixture
def client(server: LiveServer) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(server.address, concurrency=4)
    yield client
    client.close()


def tensor(images: NDArray[np.uint8], binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("image", list(images.shape), "UINT8")
    made.set_data_from_numpy(images, binary_data=binary)
    return made


def test_health_and_metadata(client, model):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fashion")
    assert client.is_model_ready("fashion", "1")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("fashion")
    assert metadata["name"] == "fashion"
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert [output["name"] for output in metadata["outputs"]] == ["probabilities", "label"]
    assert client.get_model_config("fashion")["max_batch_size"] == model.max_batch


def test_repository(client):
    entry = next(entry for entry in client.get_model_repository_index() if entry["name"] == "fashion")
    assert entry["state"] == "READY"
    client.unload_model("fashion")
    assert not client.is_model_ready("fashion")
    client.load_model("fashion")
    assert client.is_model_ready("fashion")


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_infer_gives_what_the_model_gives(client, model: Model, images, binary_input, binary_output):
    expected = model.run({"image": images[:3]}, GateContext(0.0))
    outputs = [
        triton.InferRequestedOutput("label", binary_data=binary_output),
        triton.InferRequestedOutput("probabilities", binary_data=binary_output),
    ]
    result = client.infer("fashion", [tensor(images[:3], binary_input)], outputs=outputs, request_id="seven")
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "1"
    np.testing.assert_array_equal(result.as_numpy("label"), expected["label"])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected["probabilities"], rtol=1e-6)


def test_all_outputs_come_binary_when_none_is_named(client, model: Model, images):
    result = client.infer("fashion", [tensor(images[:2])])
    expected = model.run({"image": images[:2]}, GateContext(0.0))
    for name, values in expected.items():
        np.testing.assert_array_equal(result.as_numpy(name), values)
        assert "data" not in result.get_output(name)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client, model: Model, images, algorithm):
    result = client.infer(
        "fashion",
        [tensor(images)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    expected = model.run({"image": images}, GateContext(0.0))
    np.testing.assert_array_equal(result.as_numpy("label"), expected["label"])


def test_classification_names_the_classes(client, model: Model, images):
    result = client.infer(
        "fashion", [tensor(images[:2])], outputs=[triton.InferRequestedOutput("probabilities", class_count=3)]
    )
    classes = result.as_numpy("probabilities")
    assert classes.shape == (2, 3)
    expected = model.run({"image": images[:2]}, GateContext(0.0))["probabilities"]
    for row, scores in zip(classes, expected, strict=True):
        score, index, label = row[0].decode().split(":")
        assert int(index) == scores.argmax()
        assert float(score) == pytest.approx(scores.max(), abs=1e-5)
        assert label == model.outputs[0].labels[int(index)]


def test_a_pinned_level_skips_what_the_model_skips(client, model: Model, images):
    levels = {}
    for level in (0.0, 0.5, 1.0):
        result = client.infer("fashion", [tensor(images)], parameters={"level": level})
        context = GateContext(level)
        expected = model.run({"image": images}, context)
        parameters = result.get_response()["parameters"]
        assert parameters["level"] == level
        assert parameters["skip_rate"] == pytest.approx(context.skip_rate, abs=1e-6)
        assert parameters["macs_skipped"] == pytest.approx(context.macs_skipped_ratio, abs=1e-6)
        assert parameters["quality"] == pytest.approx(model.profile.at(level).quality, abs=1e-6)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), expected["probabilities"])
        levels[level] = parameters["macs_skipped"]
    assert levels[0.0] < levels[0.5] < levels[1.0]


def test_statistics_count_items_and_runs(client, images):
    before = client.get_inference_statistics("fashion")["model_stats"][0]
    client.infer("fashion", [tensor(images[:5])])
    client.infer("fashion", [tensor(images[:1])])
    after = client.get_inference_statistics("fashion")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]


def test_priority_and_timeout_are_taken(client, images):
    result = client.infer("fashion", [tensor(images[:1])], priority=1, timeout=5_000_000)
    assert result.get_response()["parameters"]["slo_met"] is True


def test_async_infer(client, images):
    pending = [client.async_infer("fashion", [tensor(images[i : i + 1])], request_id=str(i)) for i in range(8)]
    assert [request.get_result().get_response()["id"] for request in pending] == [str(i) for i in range(8)]


def test_errors_reach_the_client(client, images):
    with pytest.raises(InferenceServerException, match="nothing"):
        client.infer("nothing", [tensor(images[:1])])
    wrong = triton.InferInput("picture", [1, 28, 28], "UINT8")
    wrong.set_data_from_numpy(images[:1])
    with pytest.raises(InferenceServerException, match="picture"):
        client.infer("fashion", [wrong])


async def test_aio_client(server: LiveServer, model: Model, images):
    def made(batch: NDArray[np.uint8]) -> triton_aio.InferInput:
        made = triton_aio.InferInput("image", list(batch.shape), "UINT8")
        made.set_data_from_numpy(batch)
        return made

    async with triton_aio.InferenceServerClient(server.address) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(*(client.infer("fashion", [made(images[i : i + 1])]) for i in range(8)))
    labels = [int(result.as_numpy("label")[0]) for result in results]
    assert labels == model.run({"image": images[:8]}, GateContext(0.0))["label"].tolist()
