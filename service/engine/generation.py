"""A request for text that a language model makes token by token, and what comes of it."""

from dataclasses import dataclass, field
from typing import Literal

from service.control.slo import LATENCY_RULE, is_latency
from service.engine.request import Finished, RequestOptions
from service.engine.sampling import Sampling
from service.errors import InvalidRequest

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """What a client may ask of one generation. `common` is what every request has, but for `slo_ms`: `first_token_ms`
    and `token_ms` take the place of the SLO's instead. Raises `InvalidRequest` naming the option.
    """

    common: RequestOptions = field(default_factory=RequestOptions)
    first_token_ms: float | None = None
    token_ms: float | None = None

    def __post_init__(self) -> None:
        if self.common.slo_ms is not None:
            raise InvalidRequest("is not for generations: slo_first_token_ms and slo_token_ms are", field="slo_ms")
        for name, value in (("slo_first_token_ms", self.first_token_ms), ("slo_token_ms", self.token_ms)):
            if value is not None and not is_latency(value):
                raise InvalidRequest(f"must be {LATENCY_RULE}", field=name)

    @property
    def own_slo(self) -> bool:
        """Whether the client asks for times of its own."""
        return self.first_token_ms is not None or self.token_ms is not None


@dataclass(slots=True)
class GenerationRequest:
    """`tokens` is the prompt. The text ends before the first of the `stops`, with an end token, or after `max_tokens`,
    all that the context holds where it is None. `number` is its place among the generations of one request, of which
    the first is let in or refused for all. The rest is as in `Request`.
    """

    id: str
    model: str
    tokens: list[int]
    arrival: float
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    options: GenerationOptions = field(default_factory=GenerationOptions)
    protocol: str = "openai"
    number: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token whose log-probability was asked for: its text in UTF-8, where in the text it begins (in
    characters), and the likeliest tokens in its place with theirs.
    """

    text: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What a step added: `text`, which may be empty while a character or a stop string is not complete, and `tokens`
    where log-probabilities were asked for. The last piece has the reason for the end, and `finished`.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish_reason: FinishReason | None = None
    finished: Finished | None = None
