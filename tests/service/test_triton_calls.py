"""Every call that the public Triton HTTP clients have, the blocking and the asyncio one, with every argument that goes
over the wire."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.live import LiveServer

Call = Callable[..., Any]

# Helpers of the client that send nothing.
LOCAL = {"close", "generate_request_body", "parse_response_body", "plugin", "register_plugin", "unregister_plugin"}
# Parts of Triton that no extension of this server's claims.
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "get_trace_settings": (),
    "update_trace_settings": (),
    "get_log_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("region", "/key", 8),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("region", b"handle", 0, 8),
    "unregister_cuda_shared_memory": (),
}


@pytest.fixture(scope="module", params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, server: LiveServer) -> Iterator[Call]:
    """Makes one call of either client: `call("is_server_live")`."""
    if request.param == "blocking":
        client = triton.InferenceServerClient(server.address)
        yield lambda name, *arguments, **options: getattr(client, name)(*arguments, **options)
        client.close()
        return

    async def once(name: str, *arguments: Any, **options: Any) -> Any:
        async with triton_aio.InferenceServerClient(server.address) as client:
            return await getattr(client, name)(*arguments, **options)

    yield lambda name, *arguments, **options: asyncio.run(once(name, *arguments, **options))


@pytest.fixture
def image(images) -> triton.InferInput:
    made = triton.InferInput("image", [1, 28, 28], "UINT8")
    made.set_data_from_numpy(images[:1])
    return made


def test_every_call_of_the_client_is_here():
    source = inspect.getsource(inspect.getmodule(test_every_call_of_the_client_is_here))
    calls = {name for name, _ in inspect.getmembers(triton.InferenceServerClient, inspect.isfunction)}
    tested = {name for name in calls if f'call("{name}"' in source}
    assert {name for name in calls if not name.startswith("_")} == tested | LOCAL | set(NOT_HERE) | {"async_infer"}


def test_health(call):
    assert call("is_server_live") is True
    assert call("is_server_ready") is True
    assert call("is_model_ready", "fashion") is True
    assert call("is_model_ready", "fashion", "1") is True
    for unknown in (("nothing",), ("fashion", "2")):
        assert call("is_model_ready", *unknown) is False


def test_server_metadata(call):
    metadata = call("get_server_metadata")
    assert set(metadata) == {"name", "version", "extensions"}
    assert set(metadata["extensions"]) >= {
        "binary_tensor_data",
        "statistics",
        "model_configuration",
        "model_repository",
        "schedule_policy",
        "parameters",
    }


@pytest.mark.parametrize("version", ["", "1"])
def test_model_metadata_and_configuration(call, model, version):
    metadata = call("get_model_metadata", "fashion", version)
    assert set(metadata) == {"name", "versions", "platform", "inputs", "outputs"}
    assert metadata["versions"] == ["1"]
    config = call("get_model_config", "fashion", version)
    for kind in ("input", "output"):
        for tensor, configured in zip(metadata[f"{kind}s"], config[kind], strict=True):
            # The batch's axis is in the metadata only; what is then left of a label is a scalar.
            dims = [] if "reshape" in configured else configured["dims"]
            assert [-1, *dims] == tensor["shape"]
            assert (configured["name"], configured["data_type"]) == (tensor["name"], f"TYPE_{tensor['datatype']}")
    assert (config["name"], config["max_batch_size"]) == ("fashion", model.max_batch)


@pytest.mark.parametrize("of", [(), ("fashion",), ("fashion", "1")])
def test_statistics(call, image, of):
    def entry() -> dict[str, Any]:
        (one,) = call("get_inference_statistics", *of)["model_stats"]
        return one

    before = entry()
    call("infer", "fashion", [image])
    after = entry()
    assert (after["name"], after["version"]) == ("fashion", "1")
    assert set(after["inference_stats"]) == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    assert all(set(part) == {"count", "ns"} for part in after["inference_stats"].values())
    assert after["inference_count"] - before["inference_count"] == 1
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["last_inference"] >= before["last_inference"]


def test_the_repository(call):
    index = call("get_model_repository_index")
    assert {"name": "fashion", "version": "1", "state": "READY", "reason": ""} in index
    assert all(set(entry) == {"name", "version", "state", "reason"} for entry in index)
    call("unload_model", "fashion", unload_dependents=True)
    (gone,) = [entry for entry in call("get_model_repository_index") if entry["name"] == "fashion"]
    assert gone["state"] == "UNAVAILABLE" and gone["reason"]
    assert call("is_model_ready", "fashion") is False
    call("load_model", "fashion")
    assert call("is_model_ready", "fashion") is True
    with pytest.raises(InferenceServerException, match="nothing"):
        call("load_model", "nothing")
    with pytest.raises(InferenceServerException, match="config"):
        call("load_model", "fashion", config="{}")


def test_infer_with_every_argument(call, image):
    result = call(
        "infer",
        "fashion",
        [image],
        model_version="1",
        outputs=[triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probabilities", class_count=2)],
        request_id="seven",
        # No hosted model keeps a state between requests, so that these mean nothing; they are no error.
        sequence_id=3,
        sequence_start=True,
        sequence_end=True,
        priority=1,
        timeout=5_000_000,
        headers={"X-Request-Source": "test"},
        query_params={"trace": "1"},
        request_compression_algorithm="gzip",
        response_compression_algorithm="deflate",
        parameters={"level": 0.5, "note": "mine"},
    )
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", "fashion", "1")
    assert answer["parameters"]["level"] == 0.5
    assert [output["name"] for output in answer["outputs"]] == ["label", "probabilities"]
    assert result.as_numpy("label").shape == (1,)
    assert result.as_numpy("probabilities").shape == (1, 2)


def test_several_requests_on_their_way(server, image):
    with triton.InferenceServerClient(server.address, concurrency=3) as client:
        pending = [client.async_infer("fashion", [image], request_id=str(number)) for number in range(9)]
        assert [one.get_result().get_response()["id"] for one in pending] == [str(number) for number in range(9)]


def test_a_timeout_that_passes_is_an_error_that_says_so(call, images):
    many = triton.InferInput("image", [64, 28, 28], "UINT8")
    many.set_data_from_numpy(np.repeat(images[:1], 64, axis=0))
    with pytest.raises(InferenceServerException, match="timeout of 1 µs"):
        call("infer", "fashion", [many], timeout=1)


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_is_not_here_says_so(call, name):
    with pytest.raises(InferenceServerException) as refused:
        call(name, *NOT_HERE[name])
    assert refused.value.status() in ("404", "501", 404, 501)
    assert refused.value.message()
