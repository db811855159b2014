"""`python -m loadtest.peers.ray_server PORT`: the dense network behind Ray Serve, with one replica."""

import os
import signal
import sys

import ray  # type: ignore[import-not-found]  # It is in an environment of its own.
from ray import serve
from starlette.requests import Request

from loadtest.peers.network import Classifier


class Dense:
    """Ray makes it in the replica's process."""

    def __init__(self) -> None:
        self.classify = Classifier()

    async def __call__(self, request: Request) -> dict[str, int]:
        query = await request.json()
        return {"label": self.classify(query["image"])}


if __name__ == "__main__":
    # SLUICE_HOME is the folder that the benchmark removes afterwards.
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=os.environ.get("SLUICE_HOME"))
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(serve.deployment(num_replicas=1)(Dense).bind(), route_prefix="/predict")
    signal.pause()
