"""Speech to text as it is served: audio in, text out, by a Whisper. Audio longer than a window is heard window by
window, each from where the one before was understood to."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import Profile
from models.model import GateContext, InvalidInput, TensorSpec
from models.zoo.log_mel import HOP, RATE, log_mel, speech_frames
from models.zoo.speech_decoding import GreedyDecoder
from models.zoo.speech_segments import Segment, is_silence, segments_of
from models.zoo.text_profile import OtherWeights
from models.zoo.whisper import Whisper
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_layers import Array
from models.zoo.whisper_words import Calibrated
from models.zoo.word_errors import word_errors

LONGEST_SECONDS = 600
"""Of audio in one request."""

EXPECTED_TOKENS, EXPECTED_TOKENS_PER_SECOND = 6, 3.5
"""Of a text, before it is known: what admission counts with."""

LEAST_SECONDS = 0.1
"""A rest of a recording that is shorter holds no word."""

LEAST_PROGRESS = 1.0
"""Seconds from one window to the next, at least."""

LOUDEST = 100.0
"""What is far beyond −1 to 1 was meant to be whole numbers."""

EXAMPLE_SECONDS = 3
REMEMBERED_LEVELS = 256


@dataclass(frozen=True, slots=True)
class Transcript:
    """`language` is a code such as "en", `task` "transcribe" or "translate", `seconds` the length of the audio."""

    text: str
    language: str
    task: str
    seconds: float
    segments: tuple[Segment, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "language": self.language,
            "task": self.task,
            "duration": self.seconds,
            "segments": [asdict(segment) for segment in self.segments],
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for: the language (None: the folder's own, else to be found out), text that came before, and
    times."""

    language: str | None = None
    prompt: str = ""
    times: bool = False


class SpeechRecognizer:
    """Implements `models.model.Transcriber`. Input `audio`, float32 [n] at 16 kHz; outputs `text`, UTF-8 bytes [1], and
    `details`, bytes [1]: JSON with the language, the duration, and the segments with their times.

    Optional inputs are `language` (bytes [1], a code), `prompt` (bytes [1], text that came before: names, spelling) and
    `timestamps` (bool [1]: segments have times of their own; audio longer than a window has them in any case).
    """

    version = "1"
    platform = "sluice_gated"
    max_batch = 1
    sample_rate = RATE
    longest_seconds = float(LONGEST_SECONDS)
    inputs = (
        TensorSpec("audio", "FP32", (-1,)),
        TensorSpec("language", "BYTES", (1,), optional=True),
        TensorSpec("prompt", "BYTES", (1,), optional=True),
        TensorSpec("timestamps", "BOOL", (1,), optional=True),
    )
    outputs = (TensorSpec("text", "BYTES", (1,)), TensorSpec("details", "BYTES", (1,)))

    def __init__(
        self,
        name: str,
        folder: Path,
        profile: Profile | None = None,
        calibrated: Calibrated | None = None,
        datatype: str = "fp32",
        report: Callable[[float], None] = lambda done: None,
    ) -> None:
        """Reads a folder of a Whisper; without a profile the model is dense, without a calibration it has no gates but
        that on positions. `report` is called with the share done.

        Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, `OtherWeights` for a profile
        that was measured on others, or `ValueError` for files of another architecture."""
        files = read_whisper(folder)
        self.name = name
        self.folder = folder
        self.digest = files.digest
        self.profile = profile or Profile.dense(name, files.digest)
        if self.profile.weights_digest != files.digest:
            raise OtherWeights(f"the profile of {name} was measured on other weights")
        self.whisper = Whisper(files.shape, files.tensors, calibrated, datatype, report)
        self._tokens = files.tokens
        self._tokenizer = files.tokenizer
        self.decoder = GreedyDecoder(self.whisper, files.tokens)
        self._thresholds = lru_cache(REMEMBERED_LEVELS)(lambda level: self.profile.at(level).thresholds)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of those that it knows."""
        return tuple(self._tokens.languages) or ("en",)

    @property
    def multilingual(self) -> bool:
        """Whether it knows other languages than English."""
        return bool(self._tokens.languages)

    @property
    def window_seconds(self) -> float:
        """What is heard at once."""
        return self.whisper.shape.frames * HOP / RATE

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        known = [spec.name for spec in self.inputs]
        for name in inputs:
            if name not in known:
                raise InvalidInput(name, f"model {self.name} has no such input; it takes {', '.join(known)}")
        if "audio" not in inputs:
            raise InvalidInput("audio", f"model {self.name} needs this input")
        audio = inputs["audio"]
        if audio.dtype != np.float32 or audio.ndim != 1:
            raise InvalidInput("audio", f"must be FP32 of the shape [n], got {audio.dtype} {list(audio.shape)}")
        if not 1 <= len(audio) <= LONGEST_SECONDS * RATE:
            seconds = len(audio) / RATE
            raise InvalidInput("audio", f"must be up to {LONGEST_SECONDS} s at {RATE} Hz, got {seconds:.1f} s")
        if not np.isfinite(audio).all() or np.abs(audio).max() > LOUDEST:
            raise InvalidInput("audio", "must be finite samples, from −1 to 1")
        wanted = self._wanted(inputs)
        if wanted.language is not None and wanted.language not in self.languages:
            few = ", ".join(self.languages[:8]) + (", …" if len(self.languages) > 8 else "")
            raise InvalidInput("language", f"{self.name} knows {few}; got {wanted.language[:20]!r}")

    def example(self) -> dict[str, NDArray[Any]]:
        """A few seconds of faint noise."""
        noise = np.random.default_rng(0).standard_normal(EXAMPLE_SECONDS * RATE)
        return {"audio": (1e-3 * noise).astype(np.float32)}

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        """Of a text of the usual length, since the true one is not known before."""
        shape, seconds = self.whisper.shape, len(inputs["audio"]) / RATE
        windows = max(1, -(-len(inputs["audio"]) // self._window_samples))
        tokens = int(windows * EXPECTED_TOKENS + seconds * EXPECTED_TOKENS_PER_SECOND)
        neurons = shape.decoder_layers * shape.decoder_feed_forward
        heads = shape.all_decoder_heads
        step = shape.step_macs(1, tokens // windows, shape.positions, neurons, heads, heads) + shape.word_macs
        return windows * (shape.encoder_macs + shape.listening_macs(shape.positions, heads)) + tokens * step

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        transcript = self.transcribe(inputs["audio"], self._wanted(inputs), context)
        details = json.dumps(transcript.as_dict(), ensure_ascii=False)
        return {
            "text": np.array([transcript.text.encode()], object),
            "details": np.array([details.encode()], object),
        }

    def transcribe(
        self,
        audio: Array,
        wanted: Wanted,
        context: GateContext,
        thresholds: Mapping[str, float] | None = None,
    ) -> Transcript:
        """What is said in audio [n] at 16 kHz, at the context's level or at given thresholds. Raises `Cancelled` when
        nobody waits for it any more."""
        if thresholds is None:
            thresholds = self._thresholds(context.level)
        window, seconds, at = self._window_samples, len(audio) / RATE, 0
        times = wanted.times or len(audio) > window
        earlier = self._ids(wanted.prompt)
        language, segments = wanted.language, list[Segment]()
        while at == 0 or len(audio) - at >= LEAST_SECONDS * RATE:
            part = audio[at : at + window]
            length = len(part) / RATE
            understood = length
            if part.any():
                spectrum = log_mel(part, self.whisper.shape.mels, self.whisper.shape.frames)
                heard = self.whisper.encode(spectrum, speech_frames(spectrum), context, thresholds)
                if language is None and self.multilingual:
                    language = self.decoder.language(heard, context, thresholds)
                prompt = self.decoder.prompt(language if self.multilingual else None, earlier, times)
                said = self.decoder.say(heard, prompt, length, times, context, thresholds)
                if not is_silence(said):
                    found, understood = segments_of(said, self._tokens, self._text, at / RATE, length)
                    segments += found
            at += int(max(understood, LEAST_PROGRESS) * RATE)
        text = "".join(segment.text for segment in segments).strip()
        language = language or self._tokens.language or self.languages[0]
        return Transcript(text, language, self._tokens.task_name, seconds, tuple(segments))

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """1 − word errors against the dense model's words, 0 where there are more of them than words."""
        said, wanted = (str(given["text"][0], "utf-8") for given in (outputs, dense))
        errors, words = word_errors(said, wanted)
        return max(0.0, 1 - errors / max(words, 1))

    @property
    def _window_samples(self) -> int:
        return self.whisper.shape.frames * HOP

    def _ids(self, text: str) -> list[int]:
        """Of a text that came before; names of special tokens in it mean nothing."""
        if not text.strip():
            return []
        ids = self._tokenizer.encode(f" {text.strip()}", add_special_tokens=False).ids
        return [token for token in ids if token < self._tokens.end]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    @staticmethod
    def _wanted(inputs: Mapping[str, NDArray[Any]]) -> Wanted:
        def text(name: str) -> str | None:
            if name not in inputs:
                return None
            given = inputs[name]
            if given.dtype != object or given.shape != (1,) or not isinstance(given[0], bytes):
                raise InvalidInput(name, f"must be BYTES of the shape [1], got {given.dtype} {list(given.shape)}")
            try:
                return str(given[0], "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput(name, f"is not UTF-8: {error.reason}") from None

        times = inputs.get("timestamps")
        if times is not None and (times.dtype != bool or times.shape != (1,)):
            raise InvalidInput("timestamps", f"must be BOOL of the shape [1], got {times.dtype} {list(times.shape)}")
        return Wanted(text("language"), text("prompt") or "", times is not None and bool(times[0]))
