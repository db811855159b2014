"""A language model of bytes whose text is fixed, and what tests need to host it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from models.gating.profile import Profile
from models.model import InvalidInput, TensorSpec
from service.engine.generation import GenerationOptions, GenerationRequest
from service.engine.request import RequestOptions
from service.engine.sampling import Sampling
from tests.service.engine.fakes import linear_profile

END = 256
VOCABULARY = 257
TOKEN_MACS = 1_000_000
PART = 8
"""Tokens of a prompt that a step takes."""


@dataclass(eq=False)
class FakeSequence:
    tokens: list[int]
    prompt: int
    computed: int = 0

    def append(self, token):
        self.tokens.append(token)

    @property
    def pending(self):
        return len(self.tokens) - self.computed


@dataclass
class FakeGenerator:
    """Says `reply` after any prompt, then the end token; without an end over and over again. `work(steps)` is called in
    each step with the number of those before. `steps` keeps (the prompts' first tokens, the levels) of each.
    """

    name: str = "fake"
    version: str = "1"
    platform: str = "test"
    max_batch: int = 4
    inputs: tuple[TensorSpec, ...] = (TensorSpec("prompt", "BYTES", (-1,)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("text", "BYTES", (-1,)),)
    profile: Profile = field(default_factory=linear_profile)
    context_length: int = 200
    vocabulary_size: int = VOCABULARY
    usual_tokens: int = 10
    end_tokens: frozenset[int] = frozenset({END})
    reply: bytes = b"Hello, world"
    endless: bool = False
    work: Callable[[int], object] = lambda steps: None
    steps: list[tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=list)
    began: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, inputs):
        pass

    def dense_macs(self, inputs):
        return TOKEN_MACS

    def run(self, inputs, context):
        context.macs = TOKEN_MACS
        return {"text": np.array([self.reply] * len(inputs["prompt"]), object)}

    def agreement(self, outputs, dense):
        return 1.0

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(token for token in tokens if token != END)

    def chat_prompt(self, messages):
        if messages[-1]["role"] != "user":
            raise InvalidInput("messages", "the last one has to be the user's")
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def begin(self, tokens):
        if not tokens:
            raise InvalidInput("tokens", "there are none")
        self.began += 1
        return FakeSequence(list(tokens), len(tokens))

    def step_macs(self, sequence):
        return min(sequence.pending, PART) * TOKEN_MACS

    def step(self, sequences, contexts):
        with self._lock:
            before = len(self.steps)
            levels = tuple(context.level for context in contexts)
            self.steps.append((tuple(sequence.tokens[0] for sequence in sequences), levels))
        self.work(before)
        return [self._advance(*both) for both in zip(sequences, contexts, strict=True)]

    def said(self, sequence):
        """How much of the reply is there."""
        return len(sequence.tokens) - sequence.prompt

    def _advance(self, sequence, context):
        taken = min(sequence.pending, PART)
        if taken == 0:
            raise ValueError("nothing is pending")
        sequence.computed += taken
        context.macs = taken * TOKEN_MACS
        context.macs_skipped = round(context.macs * (1 - self.profile.at(context.level).macs_ratio))
        context.record("first", channels=10 * taken, active=(5 if context.level > 0 else 10) * taken)
        if sequence.pending:
            return None
        said = self.said(sequence)
        logits = np.zeros(VOCABULARY, np.float32)
        ends = said >= len(self.reply) and not self.endless
        logits[END if ends else self.reply[said % len(self.reply)]] = 20.0
        return logits


def taking(token, prompt=0.0):
    """A model whose step takes `token` seconds."""
    return lambda steps: time.sleep(token)


def generation(
    prompt="Hi", arrival=None, max_tokens=None, stops=(), temperature=0.0, logprobs=None, number=0, **options
):
    own = {name: options.pop(name) for name in ("first_token_ms", "token_ms") if name in options}
    return GenerationRequest(
        id=prompt,
        model="fake",
        tokens=list(prompt.encode()),
        arrival=time.monotonic() if arrival is None else arrival,
        sampling=Sampling(temperature=temperature, logprobs=logprobs),
        max_tokens=max_tokens,
        stops=tuple(stops),
        options=GenerationOptions(RequestOptions(**options), **own),
        number=number,
    )
