"""A model that is only its profile: what a simulation hosts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, Tensors, TensorSpec
from service.control.level import Dial
from service.control.slo import SLO
from service.engine.hosted import HostedModel


@dataclass
class SimulatedModel:
    """`macs` are the dense model's for one item. A run computes nothing and skips what the profile expects."""

    profile: Profile
    macs: int = 100_000_000
    version: str = "1"
    platform: str = "simulation"
    max_batch: int = 64
    inputs: tuple[TensorSpec, ...] = (TensorSpec("item", "UINT8", (-1,)),)
    outputs: tuple[TensorSpec, ...] = ()
    _dial: Dial = field(init=False)

    def __post_init__(self) -> None:
        self._dial = Dial(self.profile)

    @property
    def name(self) -> str:
        return self.profile.model

    def check(self, inputs: Tensors) -> None:
        """Whatever it is given will do."""

    def dense_macs(self, inputs: Tensors) -> int:
        return self.macs * len(inputs["item"])

    def run(self, inputs: Tensors, context: GateContext) -> dict[str, NDArray[Any]]:
        context.macs = self.dense_macs(inputs)
        context.macs_skipped = round(context.macs * (1 - self._dial.macs_ratio(context.level)))
        return {}

    def agreement(self, outputs: Tensors, dense: Tensors) -> float:
        return 1.0


def straight_profile(least_macs: float = 1 / 6, least_quality: float = 0.9, name: str = "simulated") -> Profile:
    """From the dense model to `least_macs` of its work at a quality of `least_quality`, along a line."""
    return Profile(
        model=name,
        samples=0,
        confidence=0.95,
        weights_digest="",
        points=tuple(
            OperatingPoint(
                level=level,
                thresholds={},
                skip_rate=level * (1 - least_macs**0.5),
                macs_ratio=1 - level * (1 - least_macs),
                accuracy=None,
                accuracy_lower=None,
                agreement=1 - level * (1 - least_quality),
                agreement_lower=1 - level * (1 - least_quality),
            )
            for level in (0.0, 1.0)
        ),
    )


def host(model: SimulatedModel, slo: SLO, run_time: Callable[[GateContext], float], runs: int = 30) -> HostedModel:
    """The model as a server has it after its warm-up: its latency is known from `runs` runs at each of three levels."""
    hosted = HostedModel(model, slo)
    inputs = {"item": np.zeros(1, np.uint8)}
    for _ in range(runs):
        for level in (0.0, 0.5, 1.0):
            context = GateContext(level)
            model.run(inputs, context)
            hosted.latency.observe(context.macs - context.macs_skipped, run_time(context))
    hosted.typical_macs = model.macs
    return hosted
