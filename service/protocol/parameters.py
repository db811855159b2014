"""A request's parameters: the protocol's rules for them, and the ones that this server acts on.

Values are strings, numbers or booleans. ``timeout`` (microseconds) and ``priority`` (1 first, 0 default) are the
protocol's; ``slo_ms``, or of a language model ``slo_first_token_ms`` and ``slo_token_ms``, ``quality_floor`` and
``level`` are this server's. Other names are for custom use and ignored, as are ``sequence_*``, since no hosted model
keeps a state between requests.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from service.engine.request import RequestOptions
from service.errors import InvalidRequest

Parameters = Mapping[str, str | int | float | bool]

OPTIONS = MappingProxyType(
    {
        "slo_ms": "slo_ms",
        "quality_floor": "quality_floor",
        "level": "level",
        "timeout": "timeout_us",
        "priority": "priority",
    }
)

V2_OPTIONS = MappingProxyType({**OPTIONS, "slo_first_token_ms": "first_token_ms", "slo_token_ms": "token_ms"})
"""Those of a language model too, which `/v1` takes with its other fields."""

_NONE_GIVEN = RequestOptions()


def check_parameter_types(value: Any, field: str) -> Parameters:
    """``value`` as a parameters object ({} for absent); InvalidRequest naming the one whose type is not allowed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("must be an object", field)
    for name, content in value.items():
        if not isinstance(content, str | int | float):
            raise InvalidRequest("must be a string, a number or a boolean", f"{field}.{name[:64]}".lstrip("."))
    return value


def request_options(
    parameters: Parameters, prefix: str = "parameters.", options: Mapping[str, str] = OPTIONS
) -> RequestOptions:
    """The scheduling ``options`` in a request's parameters; InvalidRequest naming the one that is out of range, after
    ``prefix``.

    >>> request_options({"slo_ms": 20, "level": 0.5}).slo_ms
    20
    """
    for name in parameters:
        if name == "headers" or name.startswith("triton_"):
            raise InvalidRequest("is reserved by the protocol", f"{prefix}{name[:64]}")
    if parameters.get("timeout") == 0:
        # Not "none", as an engine might take it: a client whose time has run out computes this very number.
        raise InvalidRequest("must be 1 microsecond or more", f"{prefix}timeout")
    given: dict[str, Any] = {option: parameters[name] for name, option in options.items() if name in parameters}
    if not given:
        return _NONE_GIVEN
    try:
        return RequestOptions(**given)
    except InvalidRequest as error:
        raise InvalidRequest(error.reason, f"{prefix}{error.field}") from None
