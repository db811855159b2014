"""Health, metadata, configuration and statistics of the Open Inference Protocol v2 and its extensions."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from models.model import Model, TensorSpec
from service.engine.snapshot import Duration, ModelSnapshot
from service.errors import Unavailable
from service.protocol.collaborators import InferenceEngine
from service.protocol.routing import ERRORS, ErrorBody, add_versioned_route, hosted_model, json_response

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "statistics",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "parameters",
)
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": ErrorBody, "description": "Not ready"}}


class ServerMetadata(BaseModel):
    """The server's name, version and protocol extensions."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """``shape`` has -1 for a size that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model is called, and takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """True whenever it is sent at all."""

    live: bool


class Ready(BaseModel):
    """True; a server that is not ready answers 503. ``faults`` tell the operator of runs that hang, say."""

    ready: bool
    faults: list[str]


class ModelReady(BaseModel):
    """``ready`` is true; a model that is not ready answers 503."""

    name: str
    ready: bool


def models_router(engine: InferenceEngine, version: str) -> APIRouter:
    """Everything that reads and takes no body; ``version`` is the server's."""
    router = APIRouter(tags=["Server and models"])
    Hosted = Annotated[Model, Depends(hosted_model(engine))]

    @router.get("/v2/health/live", summary="Whether the server runs", response_model=Live)
    async def live() -> Response:
        return json_response({"live": True})

    @router.get("/v2/health/ready", summary="Whether all models are ready", response_model=Ready, responses=NOT_READY)
    async def ready() -> Response:
        health = engine.health()
        if not health.ready:
            raise Unavailable("; ".join(("the server is not ready", *health.faults)))
        return json_response({"ready": True, "faults": health.faults})

    @router.get("/v2", summary="Server metadata", response_model=ServerMetadata)
    async def server_metadata() -> Response:
        return json_response({"name": "sluice", "version": version, "extensions": EXTENSIONS})

    # Before the routes of one model, which would take "stats" for a name.
    @router.get("/v2/models/stats", summary="Statistics of all models")
    async def all_statistics() -> Response:
        return json_response({"model_stats": [model_statistics(snapshot) for snapshot in engine.snapshots()]})

    async def metadata(model: Hosted) -> Response:
        return json_response(model_metadata(model))

    async def model_ready(model: Hosted) -> Response:
        if not engine.is_ready(model.name):
            raise Unavailable(f"model '{model.name}' is not ready")
        return json_response({"name": model.name, "ready": True})

    async def config(model: Hosted) -> Response:
        return json_response(model_config(model))

    async def statistics(model: Hosted) -> Response:
        return json_response({"model_stats": [model_statistics(engine.snapshot(model.name))]})

    add_versioned_route(
        router, "", metadata, summary="A model's metadata", response_model=ModelMetadata, responses=ERRORS
    )
    add_versioned_route(
        router,
        "/ready",
        model_ready,
        summary="Whether a model is ready",
        response_model=ModelReady,
        responses=ERRORS | NOT_READY,
    )
    add_versioned_route(router, "/config", config, summary="A model's configuration", responses=ERRORS)
    add_versioned_route(router, "/stats", statistics, summary="A model's statistics", responses=ERRORS)
    return router


def model_metadata(model: Model) -> dict[str, Any]:
    """The protocol's metadata of a model."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in specs]

    return {
        "name": model.name,
        "versions": [model.version],
        "platform": model.platform,
        "inputs": tensors(model.inputs),
        "outputs": tensors(model.outputs),
    }


def model_config(model: Model) -> dict[str, Any]:
    """Triton's model configuration: where requests are batches, ``dims`` leave out the batch."""
    batched = model.max_batch > 0 and all(spec.shape[:1] == (-1,) for spec in (*model.inputs, *model.outputs))

    def tensor(spec: TensorSpec, **more: Any) -> dict[str, Any]:
        dims = spec.shape[1:] if batched else spec.shape
        config: dict[str, Any] = {"name": spec.name, "data_type": _config_datatype(spec.datatype), "dims": dims or (1,)}
        # Dims cannot be empty there: a scalar is one element, reshaped.
        return config | ({} if dims else {"reshape": {"shape": []}}) | more

    return {
        "name": model.name,
        "platform": model.platform,
        "backend": "sluice",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.max_batch if batched else 0,
        "input": [tensor(spec, optional=spec.optional) for spec in model.inputs],
        "output": [tensor(spec) for spec in model.outputs],
        "parameters": {},
    }


def model_statistics(snapshot: ModelSnapshot) -> dict[str, Any]:
    """An entry of ``model_stats`` in the statistics extension, zeros included."""
    statistics = snapshot.statistics

    def entry(duration: Duration) -> dict[str, int]:
        return {"count": duration.count, "ns": duration.ns}

    return {
        "name": snapshot.name,
        "version": snapshot.version,
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": entry(statistics.success),
            "fail": entry(statistics.fail),
            "queue": entry(statistics.queue),
            "compute_input": entry(statistics.compute_input),
            "compute_infer": entry(statistics.compute_infer),
            "compute_output": entry(statistics.compute_output),
            "cache_hit": entry(Duration()),
            "cache_miss": entry(Duration()),
        },
        "batch_stats": [],
    }


def _config_datatype(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
