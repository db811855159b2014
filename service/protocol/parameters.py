"""A request's parameters: the protocol's rules for them, and the ones that this server acts on.

Values are strings, numbers or booleans. ``timeout`` (microseconds) and ``priority`` (1 first, 0 default) are the
protocol's; ``slo_ms``, ``quality_floor`` and ``level`` are this server's. Other names are for custom use and ignored,
as are ``sequence_*``, since no hosted model keeps a state between requests.
"""

import math
from collections.abc import Mapping
from typing import Any

from service.engine.request import RequestOptions
from service.errors import InvalidRequest

Parameters = Mapping[str, str | int | float | bool]

MAX_SLO_MS = 86_400_000.0
"""One day: longer is a mistake in the unit."""
MAX_INT64 = 2**63 - 1


def check_parameter_types(value: Any, field: str) -> Parameters:
    """``value`` as a parameters object ({} for absent); InvalidRequest naming the one whose type is not allowed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("must be an object", field)
    for name, content in value.items():
        if not isinstance(content, str | int | float):
            raise InvalidRequest("must be a string, a number or a boolean", f"{field}.{name[:64]}")
    return value


def request_options(parameters: Parameters) -> RequestOptions:
    """The scheduling options in a request's parameters; InvalidRequest naming the one that is out of range.

    >>> request_options({"slo_ms": 20, "level": 0.5}).slo_ms
    20.0
    """
    for name in parameters:
        if name == "headers" or name.startswith("triton_"):
            raise InvalidRequest("is reserved by the protocol", f"parameters.{name[:64]}")
    return RequestOptions(
        slo_ms=_number(parameters, "slo_ms", 0.0, MAX_SLO_MS, low_included=False),
        quality_floor=_number(parameters, "quality_floor", 0.0, 1.0),
        level=_number(parameters, "level", 0.0, 1.0),
        timeout_us=_integer(parameters, "timeout", 1),
        priority=_integer(parameters, "priority", 0) or 0,
    )


def _number(parameters: Parameters, name: str, low: float, high: float, low_included: bool = True) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= float(value) <= high or (value == low and not low_included):
        bounds = f"from {low:g} to {high:g}" if low_included else f"above {low:g} and at most {high:g}"
        raise InvalidRequest(f"must be a number {bounds}", f"parameters.{name}")
    return float(value)


def _integer(parameters: Parameters, name: str, low: int) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= MAX_INT64:
        raise InvalidRequest(f"must be an integer, {low} or more", f"parameters.{name}")
    return value
