"""Numbers of a `config.json`, which must be what their field needs: `ValueError` names it where they are not."""

import math
from collections.abc import Mapping
from typing import Any


def whole_number(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """A whole number of at least 1. The default is for a field that is absent or null; one without must be there."""
    value = _given(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {field} must be a whole number of at least 1, got {value!r}")
    return value


def positive_number(config: Mapping[str, Any], field: str, default: float | None = None) -> float:
    """A number above 0. The default is for a field that is absent or null; one without must be there."""
    value = _given(config, field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"config.json: {field} must be a number above 0, got {value!r}")
    return float(value)


def flag(config: Mapping[str, Any], field: str, default: bool) -> bool:
    """True or false. The default is for a field that is absent or null."""
    value = _given(config, field, default)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {field} must be true or false, got {value!r}")
    return value


def _given(config: Mapping[str, Any], field: str, default: Any) -> Any:
    if default is None and field not in config:
        raise ValueError(f"config.json lacks {field!r}")
    value = config.get(field)
    return default if value is None else value
