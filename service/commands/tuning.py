"""What `sluice tune` was asked for, whatever the kind of model."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """The options of the command, with their defaults filled in: `output` is the folder for the result, `steps` None
    where the recipe says; `further` goes on from what was learned before."""

    model: str
    data: Path
    held_out: Path | None
    prose: bool
    steps: int | None
    output: Path
    checkpoints: Path
    points: int
    seed: int
    further: bool
    json: bool

    def make_folders(self) -> None:
        """Those that the tuning writes to. Raises `OSError`."""
        for folder in (self.output, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, name: str) -> Path:
        """Where an interrupted tuning of a model goes on from."""
        return self.checkpoints / f"{name}-tuning-{self.seed}.pt"
