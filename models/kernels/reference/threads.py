"""Threads as the compiled core has them. Here nothing is shared: torch has threads of its own."""

from dataclasses import dataclass
from os import sched_getaffinity


@dataclass(frozen=True, slots=True)
class Threads:
    """Takes the place of the core's."""

    count: int

    def __post_init__(self) -> None:
        most = len(sched_getaffinity(0))
        if not 1 <= self.count <= most:
            raise ValueError(f"count must be 1 to {most}, the processors that there are")
