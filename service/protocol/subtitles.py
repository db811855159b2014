"""Segments of speech as subtitles: SubRip (srt) and WebVTT (W3C)."""

from collections.abc import Mapping, Sequence
from typing import Any

Segments = Sequence[Mapping[str, Any]]
"""Each has `start` and `end`, seconds, and `text`."""


def as_srt(segments: Segments) -> str:
    """One numbered block a segment."""
    return "".join(
        f"{number}\n{_time(segment['start'], ',')} --> {_time(segment['end'], ',')}\n{_line(segment['text'])}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def as_vtt(segments: Segments) -> str:
    """A header, then a cue a segment."""
    cues = (
        f"{_time(segment['start'], '.')} --> {_time(segment['end'], '.')}\n{_escaped(_line(segment['text']))}\n\n"
        for segment in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _line(text: str) -> str:
    """An arrow would be read as the times of another cue, and an empty line as the end of this one."""
    return " ".join(text.split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
