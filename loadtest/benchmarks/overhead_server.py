"""`python -m loadtest.benchmarks.overhead_server NAME PORT PID_FILE`: one of the servers compared."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Response

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, InvalidInput, Tensors, TensorSpec
from service.app import create_app
from service.listen import listen
from service.settings import Settings

INPUT_BYTES = 784
PATH = "/v2/models/nothing/infer"


class Nothing:
    """A model that does nothing with its input, and says that it skips channels: what is left is the server.

    >>> Nothing().run({"x": np.zeros((1, 784), np.uint8)}, GateContext(0.0))["y"].shape
    (1, 1)
    """

    name = "nothing"
    version = "1"
    platform = "sluice"
    max_batch = 64
    inputs = (TensorSpec("x", "UINT8", (-1, INPUT_BYTES)),)
    outputs = (TensorSpec("y", "FP32", (-1, 1)),)
    profile = Profile(
        "nothing",
        samples=1000,
        confidence=0.95,
        weights_digest="none",
        points=(
            OperatingPoint(0.0, {"layer": 0.0}, 0.0, 1.0, None, None, 1.0, 1.0),
            OperatingPoint(1.0, {"layer": 1.0}, 0.5, 0.5, None, None, 0.97, 0.96),
        ),
    )

    def check(self, inputs: Tensors) -> None:
        if len(inputs["x"]) > self.max_batch:
            raise InvalidInput("x", f"has more than {self.max_batch} rows")

    def dense_macs(self, inputs: Tensors) -> int:
        return 1000 * len(inputs["x"])

    def run(self, inputs: Tensors, context: GateContext) -> dict[str, Any]:
        context.macs = self.dense_macs(inputs)
        context.record("layer", channels=64, active=64)
        return {"y": np.zeros((len(inputs["x"]), 1), np.float32)}

    def agreement(self, outputs: Tensors, dense: Tensors) -> float:
        return 1.0


def sluice() -> FastAPI:
    """The server as it is, with every metric and the controller on, around a model that does nothing."""
    return create_app(Settings(home=Path(tempfile.mkdtemp()), executors=1), [Nothing()])


def empty() -> FastAPI:
    """A handler that does nothing, as FastAPI serves it."""
    app = FastAPI()

    @app.post(PATH)
    async def handler() -> Response:
        return Response(b"{}", media_type="application/json")

    return app


def empty_in_a_thread() -> FastAPI:
    """The same, with a hop to a thread of the loop's pool and back: what a model that blocks needs at least."""
    app = FastAPI()

    @app.post(PATH)
    async def handler() -> Response:
        await asyncio.get_running_loop().run_in_executor(None, _nothing)
        return Response(b"{}", media_type="application/json")

    return app


def _nothing() -> None:
    pass


SERVERS: dict[str, Callable[[], FastAPI]] = {
    "sluice": sluice,
    "empty": empty,
    "empty, in a thread": empty_in_a_thread,
}

if __name__ == "__main__":
    Path(sys.argv[3]).write_text(str(os.getpid()))
    listen(SERVERS[sys.argv[1]](), "127.0.0.1", int(sys.argv[2]), grace_seconds=1)
