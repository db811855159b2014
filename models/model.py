"""What a hosted model is: named tensors in and out, a profile, and a run under one request's own gate context."""

from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import Profile

if TYPE_CHECKING:
    from models.kernels import Threads

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, its Open Inference Protocol datatype ("UINT8", "FP32", "INT64", "BYTES", …) and shape, −1
    where any size will do.

    `labels` are the class names along the last axis, where it has classes. A request may leave out an input that is
    `optional`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()
    optional: bool = False


class Cancelled(Exception):
    """A run was given up between two of its steps, since nobody waits for what it makes."""


class InvalidInput(ValueError):
    """An input that the model cannot take; `field` is the tensor's name, which the message names too."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(slots=True)
class LayerWork:
    """Channels that a layer has and those that it skipped, summed over the images (or tokens) of one request."""

    channels: int = 0
    skipped: int = 0
    last_active: NDArray[np.int32] | None = field(default=None, compare=False)
    """The channels of the last image (or token) that were active; None where that was not recorded."""


@dataclass(slots=True)
class GateContext:
    """One request's own: the level goes in, what the gates did comes out. It is passed down the model and shared with
    nobody."""

    level: float
    layers: dict[str, LayerWork] = field(default_factory=dict)
    macs: int = 0
    """Multiply-accumulates that the dense model would have done."""
    macs_skipped: int = 0
    wanted: Callable[[], bool] | None = field(default=None, compare=False)
    """Whether somebody still waits; asked between the steps of a run that has many."""
    threads: "Threads | None" = field(default=None, compare=False)
    """That share the larger products of the run; None: its own alone."""

    def check_wanted(self) -> None:
        """Raises `Cancelled` when nobody waits any more."""
        if self.wanted is not None and not self.wanted():
            raise Cancelled

    def record(self, layer: str, channels: int, active: int, ids: NDArray[np.int32] | None = None) -> None:
        """Counts one image (or token): how many of a layer's channels were active, and which, where that is known."""
        work = self.layers.get(layer)
        if work is None:
            self.layers[layer] = LayerWork(channels, channels - active, ids)
            return
        work.channels += channels
        work.skipped += channels - active
        work.last_active = ids

    def record_all(self, layers: abc.Sequence[str], channels: abc.Sequence[int], skipped: abc.Sequence[int]) -> None:
        """Counts one image (or token) of many layers: how many of their channels were skipped."""
        if not self.layers:
            self.layers.update(zip(layers, map(LayerWork, channels, skipped), strict=True))
            return
        for layer, met, left_out in zip(layers, channels, skipped, strict=True):
            self.record(layer, met, met - left_out)

    @property
    def skip_rate(self) -> float:
        """Skipped channels / channels, 0 to 1."""
        channels = sum(work.channels for work in self.layers.values())
        return sum(work.skipped for work in self.layers.values()) / channels if channels else 0.0

    @property
    def macs_skipped_ratio(self) -> float:
        """Multiply-accumulates not done / those of the dense model, 0 to 1."""
        return self.macs_skipped / self.macs if self.macs else 0.0


class Model(Protocol):
    """Runs may overlap in several threads, each with its own context."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def profile(self) -> Profile: ...

    def check(self, inputs: Tensors) -> None:
        """Raises `InvalidInput` when a tensor is missing, unknown, or of the wrong shape, datatype or values."""

    def dense_macs(self, inputs: Tensors) -> int:
        """Multiply-accumulates of the dense model on checked inputs."""

    def run(self, inputs: Tensors, context: GateContext) -> dict[str, NDArray[Any]]:
        """The outputs for checked inputs at the context's level; fills in the context's counts. Blocks, and releases
        the GIL."""

    def agreement(self, outputs: Tensors, dense: Tensors) -> float:
        """How far a request's outputs agree with the dense model's on the same inputs, 0 to 1."""


@runtime_checkable
class Embedder(Model, Protocol):
    """A model that makes of its one input, texts [n], its one output `embedding`, float32 [n, size]."""

    def tokens(self, text: bytes) -> NDArray[np.int64]:
        """The ids of a text's tokens, as many as the model looks at."""


@runtime_checkable
class Transcriber(Model, Protocol):
    """A model that makes of `audio`, float32 [n], its output `text`, UTF-8 bytes [1], and `details`, a JSON object
    [1] with `language`, `duration` (seconds) and `segments`. Optional inputs are `language` and `prompt`, bytes [1],
    and `timestamps`, bool [1]."""

    @property
    def sample_rate(self) -> int:
        """Of the audio, samples a second."""

    @property
    def longest_seconds(self) -> float:
        """Of the audio of one request."""

    @property
    def languages(self) -> abc.Sequence[str]:
        """Codes of those that it knows, "en"."""

    def example(self) -> Tensors:
        """A request as they usually are, to learn from how long they take."""


class Sequence(Protocol):
    """One generation's own state, its cache of keys and values: it belongs to its request and to nobody else."""

    tokens: list[int]
    """The prompt, and what was generated so far."""

    def append(self, token: int) -> None:
        """Adds the next token, which the caller chose from the logits; the next step computes it."""


MOST_CHARACTERS = 32
"""Of a token: those of any real text are far shorter in the mean, and a text of more for each that a context holds is
not even taken apart."""


@runtime_checkable
class Generator(Model, Protocol):
    """A language model. Sequences are advanced together, step by step, each at a level of its own; as a `Model` it
    takes `prompt`, texts [n], and makes `text` of it, always with the likeliest token, at most `max_tokens` where that
    input is given, else `usual_tokens`."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """After any of these a text is complete."""

    @property
    def usual_tokens(self) -> int:
        """The most that a text gets where a request does not say."""

    @property
    def context_length(self) -> int:
        """Tokens that a sequence may have."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens. The names of special tokens in it, as a chat prompt has them, become those."""

    def decode(self, tokens: abc.Sequence[int]) -> bytes:
        """Their text in UTF-8, without special tokens. It may begin or end inside of a character."""

    def chat_prompt(self, messages: abc.Sequence[Mapping[str, str]]) -> str:
        """The text that asks for an answer to messages, each with `role` and `content`, as the model was trained to
        read it. Raises `InvalidInput` when its template refuses them."""

    def begin(self, tokens: abc.Sequence[int]) -> Sequence:
        """A new sequence; nothing is computed yet. Raises `InvalidInput` when there are no tokens, too many, or one
        that the model does not have."""

    def step_macs(self, sequence: Sequence) -> int:
        """Dense multiply-accumulates of its next step."""

    def step(
        self, sequences: abc.Sequence[Sequence], contexts: abc.Sequence[GateContext]
    ) -> list[NDArray[np.float32] | None]:
        """Advances each sequence at its context's level, and fills in the contexts' counts: by its pending tokens, of a
        prompt at most so many that the others are not held up. Gives for each the logits [vocabulary] of what follows,
        or None where some of its prompt is still pending. Blocks, and releases the GIL.

        A sequence is in one step at a time; steps of different ones may overlap in several threads. Raises `ValueError`
        for a sequence without a pending token, or at the end of the context."""
