"""Where a model is hosted, from its loading to its unloading."""

from dataclasses import dataclass
from typing import Literal

from service.engine.hosted import HostedModel
from service.errors import Unavailable

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(slots=True)
class Place:
    """Where a model is, or was, hosted. `active` counts the requests inside `submit` and `generate`."""

    state: State
    reason: str = ""
    hosted: HostedModel | None = None
    active: int = 0


class Inside:
    """Counted as inside of a place, from entering to leaving."""

    __slots__ = ("_hosted", "_place")

    def __init__(self, place: Place, hosted: HostedModel) -> None:
        self._place = place
        self._hosted = hosted

    def __enter__(self) -> HostedModel:
        self._place.active += 1
        return self._hosted

    def __exit__(self, *error: object) -> None:
        self._place.active -= 1


def not_ready(name: str, place: Place) -> Unavailable:
    """What to say of a model that takes no requests."""
    return Unavailable(f"the model {name!r} is not ready: {place.reason or place.state.lower()}")
