"""A model of texts for tests of the page: a text's embedding counts its letters."""

from dataclasses import dataclass, field

import numpy as np

from models.gating.profile import Profile
from models.model import InvalidInput, TensorSpec
from tests.service.engine.fakes import linear_profile

LETTERS = 26


@dataclass
class Letters:
    """BYTES [n] in, FP32 [n, 26] out. Gated, it does not look at the last letters of the alphabet."""

    name: str = "letters"
    version: str = "1"
    platform: str = "test"
    max_batch: int = 8
    inputs: tuple[TensorSpec, ...] = (TensorSpec("text", "BYTES", (-1,)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("embedding", "FP32", (-1, LETTERS)),)
    profile: Profile = field(default_factory=linear_profile)

    def check(self, inputs):
        if len(inputs["text"]) > self.max_batch:
            raise InvalidInput("text", "too many")

    def dense_macs(self, inputs):
        return 1000 * len(inputs["text"])

    def run(self, inputs, context):
        seen = LETTERS - round(context.level * LETTERS / 2)
        counts = np.zeros((len(inputs["text"]), LETTERS), np.float32)
        for row, text in zip(counts, inputs["text"], strict=True):
            for letter in (text.decode() if isinstance(text, bytes) else text).lower():
                if 0 <= (place := ord(letter) - ord("a")) < seen:
                    row[place] += 1
        context.macs = self.dense_macs(inputs)
        context.macs_skipped = round(context.macs * context.level / 2)
        context.record("first", channels=LETTERS, active=seen)
        return {"embedding": counts}

    def agreement(self, outputs, dense):
        return 1.0
