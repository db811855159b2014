"""Load shapes by name, with the few numbers that a command line gives: what the driver and locust have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from loadtest import trace as traces
from loadtest.curve import Curve, bursts, diurnal, ramp, spike, steady, step
from loadtest.trace import Trace, generate

ShapeName = Literal["steady", "ramp", "step", "spike", "bursts", "diurnal", "trace"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)


@dataclass(frozen=True, slots=True)
class Load:
    """`rate` and `peak` are arrivals per second, `peak` by default twice the rate; `seconds` is the whole length.

    `variation` is the coefficient of variation of the gaps: 1 is Poisson. The shape `trace` replays `file`, at `speed`
    times its rate, and looks at nothing else.
    """

    shape: ShapeName = "steady"
    rate: float = 50.0
    peak: float | None = None
    seconds: float = 60.0
    variation: float = 1.0
    seed: int = 0
    file: Path | None = None
    speed: float = 1.0

    def trace(self) -> Trace:
        """The arrivals. Raises `ValueError` for numbers that make no load, `OSError` for a file that is not there."""
        if self.shape == "trace":
            if self.file is None:
                raise ValueError("the shape 'trace' needs a trace file")
            loaded = traces.load(self.file)
            return loaded if self.speed == 1 else loaded.faster(self.speed)
        return generate(self.shape, self.curve(), self.seed, self.variation)

    def curve(self) -> Curve:
        """The shape of a load that is not read from a file."""
        peak = 2 * self.rate if self.peak is None else self.peak
        match self.shape:
            case "steady":
                return steady(self.rate, self.seconds)
            case "ramp":
                return ramp(self.rate, peak, self.seconds)
            case "step":
                middle = (self.rate + peak) / 2
                return step((self.rate, middle, peak, middle, self.rate), self.seconds / 5)
            case "spike":
                return spike(self.rate, peak, 0.4 * self.seconds, 0.2 * self.seconds, 0.4 * self.seconds)
            case "bursts":
                return bursts(self.rate, peak, 0.1 * self.seconds, 0.2, 2, settle=min(1.0, 0.05 * self.seconds))
            case "diurnal":
                return diurnal(self.rate, self.seconds, swing=min(1.0, max(0.0, peak / self.rate - 1)))
            case _:
                raise ValueError(f"there is no load shape {self.shape!r}; there are: {', '.join(SHAPES)}")
