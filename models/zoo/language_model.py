"""A language model as it is served: sequences that are advanced together, or whole texts at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.gating.profile import Profile
from models.model import MOST_CHARACTERS, GateContext, InvalidInput, TensorSpec
from models.zoo.coarse_fitting import fit_coarse
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.language_gates import PromptGates, spared
from models.zoo.language_text import ChatTemplate, Vocabulary
from models.zoo.llama import UNCALIBRATED, Cache, Llama
from models.zoo.llama_gates import FITTED_ON, SINKS, gate_name
from models.zoo.llama_shape import read_shape
from models.zoo.packed_rows import PackedRows
from models.zoo.text_profile import OtherWeights

Array = NDArray[np.float32]
CHUNK = 256
"""Tokens of a prompt that one step computes."""

REMEMBERED_LEVELS = 256
DEFAULT_TOKENS = 64
"""What a request without `max_tokens` gets."""


@dataclass(slots=True)
class Generation:
    """Implements `models.model.Sequence`."""

    tokens: list[int]
    cache: Cache

    def append(self, token: int) -> None:
        self.tokens.append(token)

    def pending(self) -> list[int]:
        """What the next step computes."""
        done = self.cache.length
        return self.tokens[done : done + CHUNK]


class LanguageModel:
    """Implements `models.model.Generator`. Inputs `prompt`, bytes [n] (UTF-8), and optionally `max_tokens`, int32 [1];
    output `text`, bytes [n]: what follows each prompt, always the likeliest token, up to the end of the text."""

    version = "1"
    platform = "sluice_gated"
    max_batch = 64
    inputs = (TensorSpec("prompt", "BYTES", (-1,)), TensorSpec("max_tokens", "INT32", (1,), optional=True))
    outputs = (TensorSpec("text", "BYTES", (-1,)),)
    usual_tokens = DEFAULT_TOKENS

    def __init__(
        self,
        name: str,
        folder: Path,
        profile: Profile | None = None,
        calibration: Mapping[str, Array] = UNCALIBRATED,
        datatype: str = "fp32",
        report: Callable[[float], None] = lambda done: None,
        kept: Path | None = None,
    ) -> None:
        """Reads a Hugging Face folder; without a profile the model is dense. `report` is called with the share done.
        In the folder `kept`, if there is one, the packed weights are found and kept.

        Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, `OtherWeights` for a profile
        that was measured on others, or `ValueError` for files of another architecture."""
        self.name = name
        self.folder = folder
        config = read_json(folder / "config.json")
        shape = read_shape(config)
        self.calibration = calibration
        self.vocabulary = Vocabulary(folder)
        checkpoint = Tensors(weights_path(folder))
        self.digest = checkpoint.digest
        # Before anything is packed by a calibration that is of other weights too.
        self.profile = profile or Profile.dense(name, self.digest)
        if self.profile.weights_digest != self.digest:
            raise OtherWeights(f"the profile of {name} was measured on other weights")
        rows = None
        if kept is not None:
            rows = PackedRows(kept / f"{self.digest[:32]}-{datatype}.packed", self.digest, datatype)
        fits = FITTED_ON in calibration
        half = 0.5 if fits else 1.0
        self.network = Llama(shape, checkpoint, datatype, calibration, lambda done: report(half * done), rows)
        if fits:
            fit_coarse(self.network, calibration, lambda done: report(half + half * done))
        self.network.keep()
        kernels.release_memory()  # fitting takes as much as the weights
        self.end_tokens = _end_tokens(folder, config)
        self.context_length = self.network.shape.positions
        self.vocabulary_size = self.network.shape.vocabulary
        self.chat_prompt = ChatTemplate(folder, self.vocabulary)
        channels, macs = self.network.shape.gates()
        self._channels, self._channel_macs = np.array(channels, np.int64), np.array(macs, np.int64)
        self._heads = np.flatnonzero([gate.endswith(".heads") for gate in self.network.gates])
        self.thresholds = lru_cache(REMEMBERED_LEVELS)(partial(self._thresholds_at, self.network.gates))
        self.prompt_thresholds = lru_cache(REMEMBERED_LEVELS)(partial(self._thresholds_at, self.network.prompt_gates))

    def _thresholds_at(self, gates: Sequence[str], level: float) -> Array:
        known = self.profile.at(level).thresholds
        return np.array([known.get(gate, 0.0) for gate in gates], np.float32)

    def encode(self, text: str) -> list[int]:
        return list(self.vocabulary.encode(text))

    def decode(self, tokens: Sequence[int]) -> bytes:
        return self.vocabulary.decode(tokens)

    def begin(self, tokens: Sequence[int]) -> Generation:
        if not 1 <= len(tokens) <= self.context_length:
            raise InvalidInput("prompt", f"must have 1 to {self.context_length} tokens, got {len(tokens)}")
        if not 0 <= min(tokens) <= max(tokens) < self.vocabulary_size:
            raise InvalidInput("prompt", f"tokens are 0 to {self.vocabulary_size - 1}")
        return Generation(list(tokens), self.network.start())

    def step_macs(self, sequence: Generation) -> int:
        first, last = self._span(sequence)
        return self.network.shape.macs(first, last, last == len(sequence.tokens))

    def _span(self, sequence: Generation) -> tuple[int, int]:
        """The positions that its next step computes."""
        first = sequence.cache.length
        return first, min(len(sequence.tokens), first + CHUNK)

    def step(self, sequences: Sequence[Generation], contexts: Sequence[GateContext]) -> list[Array | None]:
        for sequence in sequences:
            first, last = self._span(sequence)
            if first == last:
                raise ValueError("a sequence has no pending token: append one")
            if last > self.context_length:
                raise ValueError(f"a sequence is at the end of the context of {self.context_length} tokens")
        results: list[Array | None] = [None] * len(sequences)
        single = []
        for i, (sequence, context) in enumerate(zip(sequences, contexts, strict=True)):
            if len(sequence.pending()) == 1:
                single.append(i)
            else:
                results[i] = self._advance(sequence, context)
        if single:
            answers = self._decode([sequences[i] for i in single], [contexts[i] for i in single])
            for i, logits in zip(single, answers, strict=True):
                results[i] = logits
        return results

    def _advance(self, sequence: Generation, context: GateContext) -> Array | None:
        """Part of a prompt, whose positions share the neurons that are active."""
        context.macs += self.step_macs(sequence)
        tokens, shape = sequence.pending(), self.network.shape
        gates = PromptGates(self.network.neuron_norms, self.prompt_thresholds(context.level))
        states = self.network.advance(tokens, sequence.cache, select=gates)
        ends = sequence.cache.length == len(sequence.tokens)
        context.macs_skipped += gates.skipped * 2 * shape.hidden * len(tokens)
        neurons = {gate_name(i, gate): n for i, n in gates.active.items() for gate in ("neurons", "down")}
        for gate, channels in zip(self.network.gates, self._channels.tolist(), strict=True):
            met = len(tokens) if gate != "head" else int(ends)
            context.record(gate, channels * met, neurons.get(gate, channels) * met)
        if not ends:
            return None
        logits: Array = self.network.logits(states[-1:])[0]
        return logits

    def _decode(self, sequences: Sequence[Generation], contexts: Sequence[GateContext]) -> Array:
        """The next token of each, together: logits [n, vocabulary]."""
        levels = [
            context.level if sequence.cache.length >= SINKS else 0.0
            for sequence, context in zip(sequences, contexts, strict=True)
        ]
        thresholds = np.stack([self.thresholds(level) for level in levels])
        for sequence, context in zip(sequences, contexts, strict=True):
            context.macs += self.step_macs(sequence)
        tokens = [sequence.tokens[-1] for sequence in sequences]
        positions = [sequence.cache.length for sequence in sequences]
        logits, active = self.network.decode(tokens, [sequence.cache for sequence in sequences], thresholds)
        active, again = active[:, :-1], active[:, -1]
        # Logits that are computed again, and, where the head has a gate, turning its inputs.
        hidden = self.network.shape.hidden
        more = hidden * again + hidden**2 * (thresholds[:, -1] > 0)
        skipped = self._channels - active
        macs = spared(self._channels, active, self.network.coarse_gates) @ self._channel_macs - more
        far = [self.network.shape.far_macs(position, kernels.KEY_BLOCK) for position in positions]
        macs += skipped[:, self._heads].sum(1) * far
        channels = self._channels.tolist()
        for context, counts, own in zip(contexts, skipped.tolist(), macs.tolist(), strict=True):
            context.macs_skipped += int(own)
            context.record_all(self.network.gates, channels, counts)
        return logits

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        for name in inputs:
            if name not in ("prompt", "max_tokens"):
                raise InvalidInput(name, f"model {self.name} has no such input; it takes prompt and max_tokens")
        if "prompt" not in inputs:
            raise InvalidInput("prompt", f"model {self.name} needs this input")
        prompts = inputs["prompt"]
        if prompts.dtype != object or prompts.ndim != 1:
            raise InvalidInput("prompt", f"must be BYTES of the shape [n], got {prompts.dtype} {list(prompts.shape)}")
        if not 1 <= len(prompts) <= self.max_batch:
            raise InvalidInput("prompt", f"a request holds 1 to {self.max_batch} prompts, got {len(prompts)}")
        most = inputs.get("max_tokens")
        if most is not None:
            if most.dtype != np.int32 or most.shape != (1,):
                raise InvalidInput("max_tokens", f"must be INT32 of the shape [1], got {most.dtype} {list(most.shape)}")
            if not 1 <= most[0] <= self.context_length:
                raise InvalidInput("max_tokens", f"must be 1 to {self.context_length}, got {most[0]}")
        for number, prompt in enumerate(prompts):
            self._check_prompt(number, prompt)

    def _check_prompt(self, number: int, prompt: Any) -> None:
        if not isinstance(prompt, bytes):
            raise InvalidInput("prompt", f"element {number} must be bytes, got {type(prompt).__name__}")
        try:
            text = prompt.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("prompt", f"element {number} is not UTF-8: {error.reason}") from None
        if len(text) > MOST_CHARACTERS * self.context_length:
            raise InvalidInput(
                "prompt",
                f"element {number} has {len(text)} characters, more than the {self.context_length} tokens that "
                f"{self.name!r} holds",
            )
        tokens = len(self.vocabulary.encode(text))
        if not 1 <= tokens < self.context_length:
            raise InvalidInput(
                "prompt", f"element {number} must have 1 to {self.context_length - 1} tokens, got {tokens}"
            )

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        """Of prompts, and of as many tokens as the request allows."""
        most, macs = _most_tokens(inputs), self.network.shape.macs
        total = 0
        for prompt in inputs["prompt"]:
            tokens = len(self.vocabulary.encode(prompt.decode()))
            last = min(tokens + most, self.context_length) - 1
            total += (
                macs(0, last, False) + (last - tokens + 1) * macs(0, 1, True) - (last - tokens + 1) * macs(0, 1, False)
            )
        return total

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        texts = [self._continue(prompt.decode(), _most_tokens(inputs), context) for prompt in inputs["prompt"]]
        return {"text": np.array(texts, object)}

    def _continue(self, prompt: str, most: int, context: GateContext) -> bytes:
        sequence = self.begin(self.vocabulary.encode(prompt))
        begun = len(sequence.tokens)
        while True:
            (logits,) = self.step([sequence], [context])
            if logits is None:
                continue
            token = int(logits.argmax())
            if token in self.end_tokens:
                break
            sequence.append(token)
            if len(sequence.tokens) >= min(begun + most, self.context_length):
                break
        return self.decode(sequence.tokens[begun:])

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """How far into a text both are the same, as a share of the longer one; the mean over the texts."""
        shares = [_common(text, wanted) for text, wanted in zip(outputs["text"], dense["text"], strict=True)]
        return float(np.mean(shares))


def _most_tokens(inputs: Mapping[str, NDArray[Any]]) -> int:
    return int(inputs["max_tokens"][0]) if "max_tokens" in inputs else DEFAULT_TOKENS


def _common(text: bytes, wanted: bytes) -> float:
    longest = max(len(text), len(wanted))
    same = next((i for i, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), min(len(text), len(wanted)))
    return same / longest if longest else 1.0


def _end_tokens(folder: Path, config: Mapping[str, Any]) -> frozenset[int]:
    """Those of config.json, and of generation_config.json, which for chat models has the end of a turn as well."""
    generation = folder / "generation_config.json"
    found: set[int] = set()
    settings = {"config.json": config, generation.name: read_json(generation) if generation.exists() else {}}
    for file, content in settings.items():
        given = content.get("eos_token_id")
        tokens = given if isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(token, int) for token in tokens):
            raise ValueError(f"{folder / file}: eos_token_id must be a whole number or a list of them, got {given!r}")
        found.update(tokens)
    return frozenset(found)
