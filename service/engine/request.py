"""A request as the engine takes it, and what comes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from models.model import GateContext
from service.control.slo import LATENCY_RULE, is_latency, is_number
from service.errors import InvalidRequest

DEFAULT_PRIORITY = 0
LOWEST_PRIORITY = 1 << 31
_LOOKED_AT = 1024


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a client may ask of one request. Raises `InvalidRequest` naming the option.

    `slo_ms` and `quality_floor` take the place of the model's own for this request. `level` pins the level, 0 to 1,
    past any floor. `timeout_us`, microseconds from arrival, is hard: an answer that would come later is an error; 0
    means none. `priority` 1 is the most urgent; 0, the default, comes after every other. Of a language model
    `first_token_ms` and `token_ms` are in place of `slo_ms`, where the request is no `GenerationRequest`.
    """

    slo_ms: float | None = None
    quality_floor: float | None = None
    level: float | None = None
    timeout_us: int | None = None
    priority: int = DEFAULT_PRIORITY
    first_token_ms: float | None = None
    token_ms: float | None = None

    def __post_init__(self) -> None:
        latencies = {"slo_ms": self.slo_ms, "slo_first_token_ms": self.first_token_ms, "slo_token_ms": self.token_ms}
        for name, value in latencies.items():
            if value is not None and not is_latency(value):
                raise InvalidRequest(f"must be {LATENCY_RULE}", field=name)
        if self.quality_floor is not None and not (is_number(self.quality_floor) and 0 <= self.quality_floor <= 1):
            raise InvalidRequest("must be a number between 0 and 1", field="quality_floor")
        if self.level is not None and not (is_number(self.level) and 0 <= self.level <= 1):
            raise InvalidRequest("must be a number between 0 and 1", field="level")
        if self.timeout_us is not None and not _is_count(self.timeout_us):
            raise InvalidRequest("must be a whole number of microseconds, 0 or more", field="timeout")
        if not _is_count(self.priority) or self.priority >= LOWEST_PRIORITY:
            raise InvalidRequest("must be a whole number, 0 or more", field="priority")

    @property
    def own_slo(self) -> bool:
        """Whether the client asks for a latency of its own."""
        return self.slo_ms is not None

    @property
    def urgency(self) -> int:
        """The lower, the earlier."""
        return self.priority if self.priority != DEFAULT_PRIORITY else LOWEST_PRIORITY


@dataclass(slots=True)
class Request:
    """`arrival` is the engine's clock (`time.monotonic`, seconds) when all of the request was there; `protocol` names
    the front that it came through.
    """

    id: str
    model: str
    inputs: Mapping[str, NDArray[Any]]
    arrival: float
    options: RequestOptions = field(default_factory=RequestOptions)
    protocol: str = "v2"

    def fingerprint(self) -> int:
        """What it is known by when its client sends it again; of large inputs the beginning is looked at."""
        parts = []
        for name, value in self.inputs.items():
            start = value.reshape(-1)[:_LOOKED_AT]
            # The bytes of an array of strings are where they lie, not what they say.
            parts.append((name, value.shape, tuple(start) if value.dtype.hasobject else start.tobytes()))
        return hash((self.model, tuple(parts)))


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Of a generation. `first_token_seconds` runs from arrival to the first token, `token_seconds` is the mean time of
    each further one, None where there was none. A client that does not read stops the second clock.
    """

    prompt_tokens: int
    generated_tokens: int
    first_token_seconds: float
    token_seconds: float | None


@dataclass(slots=True)
class Finished:
    """A request that was computed. Times are seconds; `duration` runs from arrival to the hand-over of the outputs.

    `quality` is what the profile expects at `level`. `slo_met` is judged with the SLO in force at arrival, or the
    request's own; `slo_attainable` is false where even the quality floor's level, alone on the server, would take
    longer than that. On the engine's clock an executor took it at `taken`, and the model began at `started`.
    """

    request_id: str
    outputs: Mapping[str, NDArray[Any]]
    level: float
    quality: float
    context: GateContext
    queue_seconds: float
    compute_seconds: float
    duration: float
    slo_met: bool
    slo_attainable: bool = True
    taken: float = 0.0
    started: float = 0.0
    tokens: TokenTimes | None = None
    """What was generated, where the request was for that; the outputs are empty then."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
