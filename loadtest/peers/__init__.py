"""The same dense network behind other servers, for `sluice bench slo`.

Each peer is one short file that follows its server's own documentation, and serves the network of
`loadtest.peers.network`: plain torch, one thread, batch norm folded. A request is JSON with an image in base64, which
all of them take and which costs next to nothing to read; the answer is a label.
"""

import sys
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import orjson

from loadtest.benchmarks.slo import Contender
from loadtest.driver import Address
from loadtest.processes import Cores, server, two_cores
from loadtest.workload import Judged, Post, Reply, refusal
from models.zoo.fashion_data import LabelledImages

PATH = "/predict"


class UnknownPeer(KeyError):
    """There is no such server to compare with; the message names those that there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: how it is started, and where it says that it is ready."""

    name: str
    command: tuple[str, ...]
    ready_path: str


PEERS = {
    "fastapi": Peer("FastAPI", (sys.executable, "-m", "loadtest.peers.fastapi_server", "{port}"), "/health"),
    "litserve": Peer("LitServe", (sys.executable, "-m", "loadtest.peers.litserve_server", "{port}"), "/health"),
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


def peers(names: Sequence[str], data: LabelledImages) -> list[Contender]:
    """The peers of these names, `all` for every one, on the core that the benchmark gives to servers.

    Raises `UnknownPeer`.
    """
    unknown = [name for name in names if name not in (*PEERS, "all")]
    if unknown:
        raise UnknownPeer(f"there is no peer {unknown[0]!r}; there are: {', '.join(PEERS)}, all")
    chosen = PEERS if "all" in names else {name: PEERS[name] for name in names}
    cores = two_cores()
    return [Contender(peer.name, partial(_start, peer, cores), JsonImages(data)) for peer in chosen.values()]


def _start(peer: Peer, cores: Cores | None) -> AbstractContextManager[Address]:
    return server(peer.command, peer.ready_path, cores.server if cores else None)
