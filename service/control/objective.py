"""An SLO of any kind, from what a server shows of it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from service.control.generation_slo import GenerationSLO, Objective
from service.control.slo import SLO
from service.control.speech_slo import SpeechSLO

_KINDS: tuple[type[SLO] | type[GenerationSLO], ...] = (GenerationSLO, SpeechSLO, SLO)


def objective_of(data: Mapping[str, Any]) -> Objective:
    """The SLO of the kind that has these fields. Raises `InvalidSLO`.

    >>> objective_of({"latency_ms": 20, "percentile": 99, "quality_floor": 0.95, "shed": True}).latency
    0.02
    """
    kind = next((kind for kind in _KINDS if {field.name for field in fields(kind)} == set(data)), SLO)
    return kind.from_dict(data)
