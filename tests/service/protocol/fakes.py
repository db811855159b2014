"""An engine with one model that sums its image, and whose submit can be told to fail or wait."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, InvalidInput, LayerWork
from service.control.slo import SLO
from service.engine.request import Finished, Request
from service.engine.snapshot import Duration, GateSnapshot, Health, LayerGate, ModelSnapshot, Statistics
from service.errors import InvalidRequest, NotFound, ServiceError, Unavailable
from tests.service.protocol.specs import IMAGE, SCORES

PROFILE = Profile(
    model="toy",
    samples=100,
    confidence=0.95,
    weights_digest="0",
    points=(
        OperatingPoint(0.0, {"conv": 0.0}, 0.0, 1.0, 0.9, 0.88, 1.0, 1.0),
        OperatingPoint(1.0, {"conv": 0.5}, 0.5, 0.3, None, None, 0.97, 0.95),
    ),
)


class ToyModel:
    """Scores are the sum of an image times 0, 1, 2, 3."""

    name = "toy"
    version = "1"
    platform = "sluice_toy"
    max_batch = 4
    inputs = IMAGE
    outputs = SCORES
    profile = PROFILE

    def check(self, inputs):
        if not 1 <= len(inputs["image"]) <= self.max_batch:
            raise InvalidInput("image", f"a request holds 1 to {self.max_batch} images")

    def dense_macs(self, inputs):
        return 6 * len(inputs["image"])

    def run(self, inputs, context):
        context.record("conv", channels=10, active=6)
        sums = inputs["image"].reshape(-1, 6).sum(axis=1, dtype=np.float32)
        scores = sums[:, None] * np.arange(4, dtype=np.float32)
        return {"scores": scores, "label": scores.argmax(axis=1)}

    def agreement(self, outputs, dense):
        return 1.0


@dataclass
class Entry:
    name: str
    missing: str = ""


@dataclass
class FakeEngine:
    """`submitted` and `rejected` are what it was given; `error` is raised by submit; `gate` is waited for by submit."""

    toy: ToyModel = field(default_factory=ToyModel)
    objective: SLO = field(default_factory=lambda: SLO(20.0))
    ready: bool = True
    error: Exception | None = None
    gate: asyncio.Event | None = None
    quality: float = 0.99
    submitted: list[Request] = field(default_factory=list)
    rejected: list[tuple[str, str, ServiceError]] = field(default_factory=list)
    cancelled: int = 0
    loaded: bool = True

    def names(self) -> Sequence[str]:
        return [self.toy.name]

    def state(self, name: str) -> tuple[str, str]:
        self.check_known(name)
        if not self.loaded:
            return "UNAVAILABLE", "unloaded"
        return ("READY", "") if self.ready else ("LOADING", "")

    def is_ready(self, name: str) -> bool:
        return self.state(name)[0] == "READY"

    def model(self, name: str) -> ToyModel:
        self.check_known(name)
        if not self.loaded:
            raise Unavailable(f"model '{name}' is not loaded")
        return self.toy

    def slo(self, name: str) -> SLO:
        self.model(name)
        return self.objective

    def check_known(self, name: str) -> None:
        if name != self.toy.name:
            raise NotFound(f"unknown model '{name}'")

    def snapshots(self) -> list[ModelSnapshot]:
        return [self.snapshot(self.toy.name)] if self.loaded else []

    def snapshot(self, name: str) -> ModelSnapshot:
        self.model(name)
        none = Duration()
        return ModelSnapshot(
            name=name,
            version=self.toy.version,
            ready=self.ready,
            gate=GateSnapshot(
                level=0.25,
                highest_level=0.5,
                highest_reason="the quality floor",
                layers={"conv": LayerGate(0.125, None, 10, 4)},
                expected_skip_rate=0.125,
                expected_quality=self.quality,
                expected_quality_lower=0.98,
                live_agreement=None,
                live_samples=0,
                skip_rate=0.4,
                macs_skipped=0.5,
                slo_attainable=True,
                safety_margin=1.0,
            ),
            statistics=Statistics(3, 2, Duration(2, 5000), none, none, none, Duration(2, 4000), none, 1700000000000),
            macs=18,
            macs_skipped=9,
            tail_seconds={},
            shadow_agreed=0,
            shadow_disagreed=0,
            queue_depth=0,
            inflight=0,
        )

    def health(self) -> Health:
        return Health(self.ready, () if self.ready else ("model 'toy' is loading",), 0, 0)

    def set_slo(self, name: str, slo: SLO) -> SLO:
        self.model(name)
        self.objective = slo
        return slo

    async def load(self, name: str) -> None:
        self.check_known(name)
        self.loaded = True

    async def unload(self, name: str) -> None:
        self.check_known(name)
        self.loaded = False

    def reject(self, model: str, protocol: str, arrival: float, error: ServiceError) -> None:
        self.rejected.append((model if model in self.names() else "", protocol, error))

    async def taken(self, request: Request) -> None:
        """Waits for the gate, and raises the error, where they are set."""
        self.submitted.append(request)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error

    async def submit(self, request: Request) -> Finished:
        await self.taken(request)
        try:
            self.toy.check(request.inputs)
        except InvalidInput as error:
            raise InvalidRequest(str(error).removeprefix(f"{error.field}: "), error.field) from None
        level = request.options.level or 0.0
        context = GateContext(level, {"conv": LayerWork(10, 4)}, macs=10, macs_skipped=5)
        outputs = self.toy.run(request.inputs, GateContext(level))
        return Finished(request.id, outputs, level, self.quality, context, 0.001, 0.002, 0.003, True)
