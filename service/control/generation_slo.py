"""The service-level objective of a language model: "99 % of generations have their first token within a second, and
then a token every 80 ms, and never below this quality".

>>> GenerationSLO(first_token_ms=1000, token_ms=80).patched({"token_ms": 50}).token
0.05
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from service.control.slo import LATENCY_RULE, SLO, InvalidSLO, changed, check_shared, is_latency, made


@dataclass(frozen=True, slots=True)
class GenerationSLO:
    """`percentile` % of generations are to have their first token within `first_token_ms` milliseconds of their
    arrival, and the others `token_ms` apart in the mean, at a quality of at least `quality_floor`.

    The rest is as in `SLO`. Raises `InvalidSLO`.
    """

    first_token_ms: float
    token_ms: float
    percentile: float = 99.0
    quality_floor: float = 0.95
    shed: bool = True

    def __post_init__(self) -> None:
        for name, value in (("first_token_ms", self.first_token_ms), ("token_ms", self.token_ms)):
            if not is_latency(value):
                raise InvalidSLO(name, f"must be {LATENCY_RULE}, got {value!r}")
        check_shared(self.percentile, self.quality_floor, self.shed)

    @property
    def latency(self) -> float:
        """Seconds to the first token; also what a run of the model as one request is held to."""
        return self.first_token_ms / 1e3

    @property
    def token(self) -> float:
        """Seconds per token."""
        return self.token_ms / 1e3

    @property
    def allowed_misses(self) -> float:
        """The share of generations that may be late, 0 to 1."""
        return 1 - self.percentile / 100

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """All five values, and no others. Raises `InvalidSLO`."""
        return made(cls, data)

    def patched(self, changes: Mapping[str, Any]) -> Self:
        """This SLO with some values changed. Raises `InvalidSLO` for an unknown name, or a value that cannot be."""
        return changed(self, changes)


Objective = SLO | GenerationSLO
"""Whichever a model has."""
