"""Which field of a JSON text is NaN, Infinity or larger than any double: many encoders write these, JSON has no such
number, and a parser's message names only the line and column."""

import json
import math
from typing import Any


def non_finite_field(text: bytes) -> str | None:
    """The path of the first number that is not finite, "parameters.slo_ms"; None when that is not what is wrong.

    >>> non_finite_field(b'{"latency_ms": NaN}')
    'latency_ms'
    """
    try:
        # As floats, so that an integer of hundreds of digits is infinite too.
        return _path(json.loads(text, parse_int=float), "")
    except (ValueError, RecursionError):
        return None


def _path(value: Any, path: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, dict):
        inside = ((item, f"{path}.{key}" if path else key) for key, item in value.items())
    elif isinstance(value, list):
        inside = ((item, f"{path}[{index}]") for index, item in enumerate(value))
    else:
        return None
    return next((found for item, name in inside if (found := _path(item, name)) is not None), None)
