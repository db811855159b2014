"""The same dense network behind other servers, for `sluice bench slo`.

Each peer is one short file that follows its server's own documentation, and serves the network of
`loadtest.peers.network`: plain torch, one thread, batch norm folded, in one worker process. None writes an access log.
A request is JSON with an image in base64, which all of them take and which costs next to nothing to read; the answer is
a label.
"""

import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import orjson

from loadtest.benchmarks.contender import Contender, Say
from loadtest.driver import Address
from loadtest.peers.environments import environment
from loadtest.processes import ServerFailed, server, two_cores
from loadtest.workload import Judged, Post, Reply, refusal
from models.zoo.fashion_data import LabelledImages

PATH = "/predict"


class UnknownPeer(KeyError):
    """There is no such server to compare with; the message names those that there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: what the interpreter is told to run it, and where it says that it is ready.

    `requirements` names the list of its packages, for one that has an environment of its own.
    """

    name: str
    arguments: tuple[str, ...]
    ready_path: str
    needs: tuple[str, ...] = ("torch",)
    requirements: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


PEERS = {
    "fastapi": Peer("FastAPI", ("-m", "loadtest.peers.fastapi_server", "{port}"), "/health"),
    "litserve": Peer(
        "LitServe", ("-m", "loadtest.peers.litserve_server", "{port}"), "/health", needs=("torch", "litserve")
    ),
    "bentoml": Peer(
        "BentoML",
        ("-m", "bentoml", "serve", "loadtest.peers.bentoml_server:Dense", "--host", "127.0.0.1", "--port", "{port}"),
        "/readyz",
        requirements="bentoml",
        variables={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "ray": Peer(
        "Ray Serve",
        ("-m", "loadtest.peers.ray_server", "{port}"),
        "/-/healthz",
        requirements="ray",
        # Of the switches that its documentation names for speed, RAY_SERVE_THROUGHPUT_OPTIMIZED is slower on one core.
        variables={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
    ),
}


class JsonImages:
    """One image a request, `{"image": base64 of its 784 bytes}`; the answer is `{"label": …}`."""

    model = "fashion"

    def __init__(self, data: LabelledImages) -> None:
        self._labels: list[int] = data.labels.tolist()
        headers = {"Content-Type": "application/json"}
        bodies = (orjson.dumps({"image": b64encode(image.tobytes()).decode()}) for image in data.images)
        self.posts = [Post(PATH, headers, body) for body in bodies]

    def judge(self, number: int, reply: Reply) -> Judged:
        if reply.status != 200:
            return Judged(refusal(reply))
        try:
            return Judged("ok", score=float(orjson.loads(reply.body)["label"] == self._labels[number]))
        except (KeyError, TypeError, ValueError):
            return Judged("error")


def contenders(names: Sequence[str], data: LabelledImages, environments: Path) -> list[Contender]:
    """The peers of these names, `all` for every one, on the core that the benchmark gives to servers.

    `environments` is the folder for those that a peer has to itself. Raises `UnknownPeer`.
    """
    unknown = [name for name in names if name not in (*PEERS, "all")]
    if unknown:
        raise UnknownPeer(f"there is no peer {unknown[0]!r}; there are: {', '.join(PEERS)}, all")
    cores = two_cores()
    images = JsonImages(data)
    return [
        Contender(
            peer.name,
            partial(_start, peer, environments, cores.server if cores else None),
            images,
            prepare=partial(_interpreter, peer, environments),
        )
        for name, peer in PEERS.items()
        if name in names or "all" in names
    ]


def _interpreter(peer: Peer, environments: Path, say: Say = lambda _: None) -> str:
    """The interpreter that has what the peer needs."""
    for module in peer.needs:
        if find_spec(module) is None:
            raise ServerFailed(f"{module} is not installed: pip install 'sluice-serve[peers]'")
    return str(environment(peer.requirements, environments, say)) if peer.requirements else sys.executable


@contextmanager
def _start(peer: Peer, environments: Path, cores: set[int] | None) -> Iterator[Address]:
    command = (_interpreter(peer, environments), *peer.arguments)
    with server(command, peer.ready_path, cores, peer.variables) as address:
        yield address
