"""What a model of speech does at each of its operating points, on recordings with texts: word error rates, and the time
from audio to text."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext
from models.zoo.speech import SpeechRecognizer, Wanted
from models.zoo.speech_data import Clip
from models.zoo.word_errors import rate, rate_bounds, word_errors

TIMED_CLIPS = 24
TIMED_SECONDS = (2.0, 10.0)
"""Clips of such a length are timed."""
TURNS = 3


def measure_speech(
    model: SpeechRecognizer, clips: Sequence[Clip], levels: Sequence[float], report: Callable[[float], None]
) -> dict[str, Any]:
    """Everything that `sluice quality` reports, as plain data; `report` is called with the share done. Raises
    `ValueError` for clips without texts."""
    if any(clip.text is None for clip in clips):
        raise ValueError("every recording must have its text, in a file of its name and .txt beside it")
    timed = [clip for clip in clips if TIMED_SECONDS[0] <= clip.seconds <= TIMED_SECONDS[1]]
    timed = timed[:: max(1, len(timed) // TIMED_CLIPS)][:TIMED_CLIPS]
    rows: list[dict[str, Any]] = []
    dense: NDArray[np.int64] | None = None
    for i, level in enumerate(levels):
        counts, work = [], []
        for clip in clips:
            context = GateContext(level)
            said = model.transcribe(clip.audio, Wanted(language="en"), context).text
            counts.append(word_errors(said, clip.text or ""))
            work.append((1 - context.macs_skipped_ratio, context.skip_rate))
        errors, words = np.array(counts).T
        dense = errors if dense is None else dense
        macs_ratio, skip_rate = np.mean(work, axis=0)
        rows.append(
            {
                "level": level,
                "macs_ratio": float(macs_ratio),
                "skip_rate": float(skip_rate),
                "wer": rate(errors, words),
                "wer_bounds": rate_bounds(errors, words),
                "wer_lost": rate(errors - dense, words),
                "wer_lost_bounds": rate_bounds(errors, words, dense),
            }
        )
        report(0.8 * (i + 1) / len(levels))
    seconds = _median_seconds(model, levels, timed, report) if timed else None
    for i, row in enumerate(rows):
        row["ms"] = seconds[i] * 1e3 if seconds else None
        row["speedup"] = seconds[0] / seconds[i] if seconds else None
    return {
        "model": model.name,
        "clips": len(clips),
        "words": int(words.sum()),
        "seconds": sum(clip.seconds for clip in clips),
        "timed_clips": len(timed),
        "timed_seconds": float(np.mean([clip.seconds for clip in timed])) if timed else 0.0,
        "points": rows,
    }


def _median_seconds(
    model: SpeechRecognizer, levels: Sequence[float], clips: Sequence[Clip], report: Callable[[float], None]
) -> list[float]:
    """The mean over the clips of the median time of each, at each level; the levels take turns at each clip."""
    times = np.zeros((len(levels), len(clips), TURNS))
    for turn in range(TURNS):
        for number, clip in enumerate(clips):
            for i, level in enumerate(levels):
                started = perf_counter()
                model.transcribe(clip.audio, Wanted(language="en"), GateContext(level))
                times[i, number, turn] = perf_counter() - started
        report(0.8 + 0.2 * (turn + 1) / TURNS)
    seconds: list[float] = np.median(times, axis=2).mean(1).tolist()
    return seconds
