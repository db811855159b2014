"""A model of speech for tests of the page: it hears how long a sound is, and how high. It has many layers, and one of
more channels than a page can draw."""

from dataclasses import dataclass, field

import numpy as np

from models.gating.profile import Profile
from models.model import TensorSpec
from tests.service.engine.fakes import linear_profile

RATE = 16_000
WORDS = 300_000


@dataclass
class Ears:
    """FP32 [samples] at 16 kHz in, BYTES [1] out: "1.5 s at 440 Hz". Gated, it is deaf to how high."""

    name: str = "ears"
    version: str = "1"
    platform: str = "test"
    max_batch: int = 1
    inputs: tuple[TensorSpec, ...] = (TensorSpec("audio", "FP32", (-1,)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("text", "BYTES", (1,)),)
    profile: Profile = field(default_factory=linear_profile)

    def check(self, inputs):
        pass

    def dense_macs(self, inputs):
        return len(inputs["audio"])

    def run(self, inputs, context):
        audio = inputs["audio"]
        seconds = len(audio) / RATE
        crossings = int((np.diff(np.signbit(audio)) != 0).sum())
        text = f"{seconds:.1f} s at {round(crossings / 2 / seconds, -1):.0f} Hz" if context.level < 1 else "a sound"
        context.macs = len(audio)
        context.macs_skipped = round(context.macs * context.level / 2)
        for number in range(1, 15):
            context.record(f"encoder{number}.neurons", channels=10, active=10 - round(5 * context.level))
        context.record("words", WORDS, WORDS // 2, np.arange(WORDS // 2, dtype=np.int32))
        return {"text": np.array([text.encode()], object)}

    def agreement(self, outputs, dense):
        return float(outputs["text"][0] == dense["text"][0])
