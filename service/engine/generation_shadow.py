"""The quality guard of a language model: what a gated step said next, against what the dense model says."""

import logging
from dataclasses import dataclass

from models.model import GateContext, Generator
from service.engine.hosted import HostedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GenerationShadow:
    """`likeliest` is the token that a step at `level` found to follow `tokens`. Implements
    `service.engine.shadow.Shadow`.
    """

    hosted: HostedModel
    model: Generator
    tokens: tuple[int, ...]
    likeliest: int
    level: float
    seconds: float
    alone: float

    def run(self) -> float | None:
        try:
            sequence, logits = self.model.begin(self.tokens), None
            while logits is None:
                (logits,) = self.model.step([sequence], [GateContext(0.0)])
            return float(int(logits.argmax()) == self.likeliest)
        except Exception:
            log.exception("a shadow run of model %s failed", self.model.name)
            return None
