"""A real server on a loopback port, in a thread of the test's own process."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from models.model import Model
from service.app import create_app
from service.listen import Server, config_of
from service.settings import load_settings

START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class LiveServer:
    """``address`` is host:port, ``http`` a client of it."""

    address: str
    http: httpx.Client

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`: 'name{labels}' as it is written there, and its value."""
        lines = self.http.get("/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}


@contextmanager
def serve(models: Iterable[Model], home: Path, **settings: Any) -> Iterator[LiveServer]:
    """Serves ``models`` with uvicorn until the block ends; ``home`` keeps the SLOs."""
    hosted = {model.name: model for model in models}
    app = create_app(load_settings(home=home, **settings), hosted.values(), hosted.__getitem__)
    server = Server(config_of(app, "127.0.0.1", 0, grace_seconds=10), drain=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as http:
            yield LiveServer(f"{host}:{port}", http)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        assert not thread.is_alive(), "the server did not stop"


def infer_body(images: NDArray[np.uint8], **parameters: Any) -> dict[str, Any]:
    """The JSON of an inference request."""
    return {
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
        ],
        "parameters": parameters,
    }
