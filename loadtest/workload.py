"""What a load test sends, and how an answer is judged. Other models bring a `Workload` of their own.

A request is encoded once, before the test, so that the client's own work stays small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.summary import Outcome, Sample
from models.zoo.fashion_data import LabelledImages
from service.protocol.v2_request import JSON_LENGTH_HEADER

Parameters = Mapping[str, float | int | str | bool]


@dataclass(frozen=True, slots=True)
class Post:
    """A request, ready to be sent to `path`."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: `headers` with lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """How a reply counts; see `loadtest.summary.Sample`. `first_token` is seconds after the request was sent."""

    outcome: Outcome
    level: float | None = None
    score: float | None = None
    first_token: float | None = None
    token: float | None = None
    audio_seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """`labels` int64 [images], and the level that they were found at."""

    labels: NDArray[np.int64]
    level: float


class Workload(Protocol):
    """`model` is the name that the SLO belongs to; arrival n sends `posts[n % len(posts)]`."""

    @property
    def model(self) -> str: ...
    @property
    def posts(self) -> Sequence[Post]: ...

    def judge(self, number: int, reply: Reply) -> Judged:
        """Judges the reply to `posts[number]`; one that cannot be read is an error, not an exception."""


class Images:
    """Labelled images in binary Open Inference Protocol requests, one after the other.

    `parameters` go into each request: `{"level": 0}` pins the dense model, `{"quality_floor": 1}` allows no other.
    """

    def __init__(
        self, data: LabelledImages, parameters: Parameters | None = None, model: str = "fashion", batch: int = 1
    ) -> None:
        if not 1 <= batch <= len(data):
            raise ValueError(f"a request holds 1 to {len(data)} images, got {batch}")
        self.model = model
        starts = range(0, len(data) - batch + 1, batch)
        self._labels = [data.labels[start : start + batch] for start in starts]
        self.posts = [_v2_post(model, data.images[start : start + batch], parameters or {}) for start in starts]

    def judge(self, number: int, reply: Reply) -> Judged:
        if reply.status != 200:
            return Judged(refusal(reply))
        answer, labels = self.read(reply), self._labels[number]
        if answer is None or len(answer.labels) != len(labels):
            return Judged("error")
        return Judged("ok", answer.level, float(np.mean(answer.labels == labels)))

    @staticmethod
    def read(reply: Reply) -> Answer | None:
        """None for what is no answer."""
        if reply.status != 200:
            return None
        try:
            split = int(reply.headers[JSON_LENGTH_HEADER.lower()])
            head = orjson.loads(reply.body[:split])
            return Answer(np.frombuffer(reply.body, "<i8", offset=split), float(head["parameters"]["level"]))
        except (KeyError, TypeError, ValueError):
            return None


def judged_sample(scheduled: float, sent: float, finished: float, judged: Judged) -> Sample:
    """The sample of an arrival whose reply was judged."""
    return Sample(
        scheduled,
        sent,
        finished,
        judged.outcome,
        judged.level,
        judged.score,
        judged.first_token,
        judged.token,
        judged.audio_seconds,
    )


def refusal(reply: Reply) -> Outcome:
    """A server under load says 503, with Retry-After when it did not let the request in; everything else is wrong."""
    if reply.status != 503:
        return "error"
    return "refused" if "retry-after" in reply.headers else "expired"


def load_workload(name: str) -> Workload:
    """The workload that `package.module:function` makes. Raises `ValueError` where there is none."""
    module, _, function = name.partition(":")
    try:
        made: Workload = getattr(import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"a workload is named package.module:function, {name!r} does not work: {error}") from None
    return made


def _v2_post(model: str, images: np.ndarray[Any, Any], parameters: Parameters) -> Post:
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(images.shape),
        "parameters": {"binary_data_size": images.nbytes},
    }
    wanted = {"name": "label", "parameters": {"binary_data": True}}
    head = orjson.dumps({"parameters": parameters, "inputs": [tensor], "outputs": [wanted]})
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(head))}
    return Post(f"/v2/models/{model}/infer", headers, head + images.tobytes())
