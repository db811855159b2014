"""The service-level objective of a model: "99 % of requests within 20 ms, and never below this quality".

>>> SLO(latency_ms=20).patched({"percentile": 99.9}).percentile
99.9
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Self, TypeGuard, TypeVar

LONGEST_LATENCY_MS = 86_400_000.0
"""A day: more is a slip of the hand."""
LATENCY_RULE = f"a finite number of milliseconds above 0 and at most {LONGEST_LATENCY_MS:.0f}, a day"

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


class InvalidSLO(ValueError):
    """A value that no SLO can have; `field` is its name, which the message names too."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True)
class SLO:
    """`percentile` % of requests are to be answered within `latency_ms` milliseconds, at a quality of at least
    `quality_floor`.

    `quality_floor` is a ratio, 0 to 1, of agreement with the dense model. With `shed`, a request that cannot be in time
    is refused or dropped; without, it is served late. Raises `InvalidSLO`.
    """

    latency_ms: float
    percentile: float = 99.0
    quality_floor: float = 0.95
    shed: bool = True

    def __post_init__(self) -> None:
        if not is_latency(self.latency_ms):
            raise InvalidSLO("latency_ms", f"must be {LATENCY_RULE}, got {self.latency_ms!r}")
        check_shared(self.percentile, self.quality_floor, self.shed)

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.latency_ms / 1e3

    @property
    def allowed_misses(self) -> float:
        """The share of requests that may be late, 0 to 1."""
        return 1 - self.percentile / 100

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """All four values, and no others. Raises `InvalidSLO`."""
        return made(cls, data)

    def patched(self, changes: Mapping[str, Any]) -> Self:
        """This SLO with some values changed. Raises `InvalidSLO` for an unknown name, or a value that cannot be."""
        return changed(self, changes)


def check_shared(percentile: object, quality_floor: object, shed: object) -> None:
    """What every kind of SLO has. Raises `InvalidSLO`."""
    if not is_number(percentile) or not 0 < percentile < 100:
        raise InvalidSLO("percentile", f"must be above 0 and below 100, got {percentile!r}")
    if not is_number(quality_floor) or not 0 <= quality_floor <= 1:
        raise InvalidSLO("quality_floor", f"must be between 0 and 1, got {quality_floor!r}")
    if not isinstance(shed, bool):
        raise InvalidSLO("shed", f"must be true or false, got {shed!r}")


def made(kind: "type[S]", data: Mapping[str, Any]) -> "S":
    """An SLO of a kind from all of its values, and no others. Raises `InvalidSLO`."""
    _refuse_unknown(kind, data)
    for field in fields(kind):
        if field.name not in data:
            raise InvalidSLO(field.name, "is missing")
    return kind(**data)


def changed(slo: "S", changes: Mapping[str, Any]) -> "S":
    """An SLO with some values changed. Raises `InvalidSLO`."""
    _refuse_unknown(type(slo), changes)
    return replace(slo, **changes)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number. JSON's true is an int to Python; an int past the largest float is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:
        return False


def is_latency(value: object) -> bool:
    """Whether it is a latency in milliseconds that an SLO, or a request, can ask for."""
    return is_number(value) and 0 < value <= LONGEST_LATENCY_MS


def _refuse_unknown(kind: "type[DataclassInstance]", data: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(kind)]
    for name in data:
        if name not in known:
            raise InvalidSLO(str(name), f"is not part of this SLO; known are {', '.join(known)}")
