"""From a window's tokens to segments of text with their times."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from models.zoo.speech_decoding import Said
from models.zoo.whisper_files import SpeechTokens

TIME_STEP = 0.02
"""Seconds from one token of time to the next."""

SILENT_FROM, UNSURE_BELOW = 0.6, -1.0
"""A window is silent where the probability of that is as high and what was said in its place as unlikely."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text from `start` to `end`, seconds; `seek` is where its window begins, in frames of 10 ms."""

    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    mean_log_probability: float
    compression_ratio: float
    no_speech: float


def is_silence(said: Said) -> bool:
    """Whether a window seems to hold no speech."""
    return said.no_speech > SILENT_FROM and said.mean_log_probability < UNSURE_BELOW


def segments_of(
    said: Said, tokens: SpeechTokens, text_of: Callable[[Sequence[int]], str], start: float, seconds: float
) -> tuple[list[Segment], float]:
    """The segments of a window that begins at `start` and is `seconds` long, and how much of it was understood, in
    seconds: all of it, or what lies before the last pair of times where the text goes on behind that."""
    spoken, understood = said.tokens, seconds
    is_time = [token >= tokens.first_timestamp for token in spoken]
    pairs = [i for i in range(1, len(spoken)) if is_time[i - 1] and is_time[i]]
    if pairs and is_time[-2:] != [False, True]:
        spoken = spoken[: pairs[-1]]
        understood = min(seconds, _time(spoken[-1], tokens)) or seconds
    segments = []
    for begin, end, ids in _pieces(spoken, tokens):
        text = text_of(ids)
        if text.strip():
            segments.append(
                Segment(
                    seek=round(start * 100),
                    start=start + min(begin, seconds),
                    end=start + (seconds if end is None else min(end, seconds)),
                    text=text,
                    tokens=tuple(ids),
                    mean_log_probability=said.mean_log_probability,
                    compression_ratio=compression_ratio(text),
                    no_speech=said.no_speech,
                )
            )
    return segments, understood


def compression_ratio(text: str) -> float:
    """How many times smaller the text is when it is compressed: high where it repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content)) if content else 1.0


def _pieces(said: Sequence[int], tokens: SpeechTokens) -> Iterator[tuple[float, float | None, list[int]]]:
    """Start, end (None: it was not said) and text tokens of what lies between two times, in seconds of the window."""
    begin, ids = 0.0, list[int]()
    for token in said:
        if token < tokens.first_timestamp:
            ids.append(token)
            continue
        if ids:
            yield begin, _time(token, tokens), ids
            ids = []
        begin = _time(token, tokens)
    if ids:
        yield begin, None, ids


def _time(token: int, tokens: SpeechTokens) -> float:
    return (token - tokens.first_timestamp) * TIME_STEP
