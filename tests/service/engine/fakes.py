"""A model whose work is a number, and what tests need to host it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, InvalidInput, TensorSpec
from service.engine.observer import RequestOutcome
from service.engine.request import Request, RequestOptions

MACS = 100_000_000


def linear_profile(least_macs: float = 0.2, quality_loss: float = 0.2) -> Profile:
    """Eleven points, from dense to `least_macs` of the work and `quality_loss` less quality, straight between."""
    levels = [index / 10 for index in range(11)]
    return Profile(
        model="fake",
        samples=1000,
        confidence=0.95,
        weights_digest="",
        points=tuple(
            OperatingPoint(
                level=level,
                thresholds={"first": level, "second": 2 * level},
                skip_rate=level / 2,
                macs_ratio=1 - level * (1 - least_macs),
                accuracy=None,
                accuracy_lower=None,
                agreement=1 - quality_loss * level,
                agreement_lower=1 - quality_loss * level,
            )
            for level in levels
        ),
    )


@dataclass
class FakeModel:
    """Calls `work(value, context)` in each run, and doubles its input. A level above 0 skips half of one layer."""

    name: str = "fake"
    version: str = "1"
    platform: str = "test"
    max_batch: int = 64
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 1)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (-1, 1)),)
    profile: Profile = field(default_factory=linear_profile)
    work: Callable[[float, GateContext], object] = lambda value, context: None
    ran: list[tuple[float, float]] = field(default_factory=list)
    """(The first value of the input, the level) of each run."""
    agrees: float = 1.0

    def check(self, inputs):
        if np.isnan(inputs["x"]).any():
            raise InvalidInput("x", "holds NaN")

    def dense_macs(self, inputs):
        return MACS * len(inputs["x"])

    def run(self, inputs, context):
        value = float(inputs["x"].flat[0])
        self.ran.append((value, context.level))
        self.work(value, context)
        context.macs = self.dense_macs(inputs)
        context.macs_skipped = round(context.macs * (1 - self.profile.at(context.level).macs_ratio))
        context.record("first", channels=10, active=5 if context.level > 0 else 10)
        context.record("second", channels=20, active=20)
        return {"y": inputs["x"] * 2}

    def agreement(self, outputs, dense):
        return self.agrees


@dataclass
class Watcher:
    """An observer that keeps what it is told."""

    told: list[RequestOutcome] = field(default_factory=list)

    def finished(self, outcome):
        self.told.append(outcome)

    @property
    def outcomes(self):
        return [outcome.outcome for outcome in self.told]


def request(value=1.0, arrival=0.0, model="fake", items=1, id="", **options):
    return Request(
        id=id or str(value),
        model=model,
        inputs={"x": np.full((items, 1), value, np.float32)},
        arrival=arrival,
        options=RequestOptions(**options),
    )
