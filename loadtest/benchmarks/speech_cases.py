"""What `sluice bench model` times of a model of speech: the encoder on a whole window, beside other engines, and our
way from audio to text, dense and at its levels."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks import model_engines, speech_engines
from loadtest.benchmarks.model_cases import DATATYPES, INPUTS, Case, Level, Run
from models.model import GateContext
from models.zoo import speech_data, speech_family
from models.zoo.log_mel import HOP, log_mel, speech_frames
from models.zoo.speech import SpeechRecognizer, Wanted

ENCODER, TEXT = 1, 2
SECONDS = (2.0, 10.0)
"""Clips of such a length are the inputs."""


def speech_cases(
    name: str,
    engines: Sequence[str],
    datatypes: Sequence[str],
    numbers: Sequence[int],
    levels: Sequence[float],
    checked: bool,
) -> Iterator[Case]:
    """Both cases at each datatype, or those of these `numbers`. Raises as `model_cases.cases_of`, and
    `speech_data.MissingSpeech`."""
    wanted = [number for number in numbers if number in (ENCODER, TEXT)] or [ENCODER, TEXT]
    found = [clip.audio for clip in speech_data.asterisk() if SECONDS[0] <= clip.seconds <= SECONDS[1]]
    clips = found[:: len(found) // INPUTS][:INPUTS]
    exact = speech_family.load(name) if checked else None
    for datatype in datatypes:
        model = speech_family.load(f"{name}:{datatype}")
        if ENCODER in wanted:
            yield _encoder_case(model, exact, engines, datatype, clips)
        if TEXT in wanted:
            yield _text_case(model, exact, datatype, clips, levels)


def _encoder_case(
    model: SpeechRecognizer,
    exact: SpeechRecognizer | None,
    engines: Sequence[str],
    datatype: str,
    clips: Sequence[NDArray[np.float32]],
) -> Case:
    shape = model.whisper.shape
    window = shape.frames * HOP

    def encoded(by: SpeechRecognizer, spectrum: NDArray[Any]) -> NDArray[np.float32]:
        return by.whisper.encode(spectrum, speech_frames(spectrum), GateContext(0.0)).states

    # A window full of speech: dense work is the same for any.
    full = [np.resize(np.concatenate([*clips[i:], *clips[:i]]), window) for i in range(len(clips))]
    inputs: list[NDArray[Any]] = [log_mel(audio, shape.mels, shape.frames) for audio in full]
    wanted = [encoded(exact, spectrum) for spectrum in inputs] if exact else []
    peers = [Run(engine, _engine(engine, model, datatype)) for engine in engines if datatype in DATATYPES[engine]]
    runs = [Run("sluice", lambda spectrum: encoded(model, spectrum)), *peers]
    seconds = f"encoder, {model.window_seconds:g} s"
    return Case(seconds, ENCODER, datatype, shape.encoder_macs, inputs, wanted, runs)


def _engine(engine: str, model: SpeechRecognizer, datatype: str) -> model_engines.Engine:
    if engine == "torch":
        return speech_engines.torch_encoder(model.folder, datatype)
    from loadtest.benchmarks.model_graphs import checked
    from loadtest.benchmarks.speech_graphs import encoder_graph

    make = model_engines.onnx_runtime if engine == "ort" else model_engines.openvino
    run = make(checked(encoder_graph(model.folder, fused=engine == "ort")), datatype)
    return lambda spectrum: run(np.ascontiguousarray(spectrum.T)[None])[0]


def _text_case(
    model: SpeechRecognizer,
    exact: SpeechRecognizer | None,
    datatype: str,
    clips: Sequence[NDArray[np.float32]],
    levels: Sequence[float],
) -> Case:
    def say(audio: NDArray[Any], context: GateContext, by: SpeechRecognizer = model) -> NDArray[np.float32]:
        """How often each token is in the text: what a cosine can compare."""
        segments = by.transcribe(audio, Wanted("en"), context).segments
        ids = [token for segment in segments for token in segment.tokens]
        return np.bincount([0, *ids], minlength=by.whisper.shape.vocabulary).astype(np.float32)

    wanted = [say(audio, GateContext(0.0), exact) for audio in clips] if exact else []
    context = GateContext(0.0)
    for audio in clips:
        say(audio, context)
    gated = [Level(say, level) for level in levels]
    runs = [Run(f"level {level:g}", run, level, run.macs_ratio) for level, run in zip(levels, gated, strict=True)]
    dense = Run("sluice", lambda audio: say(audio, GateContext(0.0)))
    return Case(
        f"to text, {SECONDS[0]:g} to {SECONDS[1]:g} s",
        TEXT,
        datatype,
        context.macs // len(clips),
        list(clips),
        wanted,
        [dense, *runs],
    )
