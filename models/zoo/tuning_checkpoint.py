"""How far a tuning has got, as it is told, and in a file, so that one that is interrupted can go on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Step:
    """A step, counted from 1, and the divergence from the dense model in it, in nats a token."""

    number: int
    steps: int
    divergence: float


def keep(path: Path, about: str, step: int, student: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Writes all of it or nothing; `about` says which tuning it is, and `step` how many steps are done."""
    partial = path.with_name(path.name + ".partial")
    state = {"about": about, "step": step, "student": student.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, partial)
    partial.replace(path)


def resume(path: Path | None, about: str, student: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """The steps that are done; none where there is no file, or that of another tuning."""
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["about"] != about:
        return 0
    student.load_state_dict(state["student"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
