"""The SLO of a model of speech: a latency for each request, and more for each second of its audio.

>>> SpeechSLO(latency_ms=100, audio_second_ms=50).latency_of(4.0)
0.3
"""

from dataclasses import dataclass

from service.control.slo import LATENCY_RULE, SLO, InvalidSLO, is_latency, is_number


@dataclass(frozen=True, slots=True)
class SpeechSLO(SLO):
    """A request is to be answered within `latency_ms` and `audio_second_ms` for each second of its audio; 0 of
    those makes the SLO one of requests, however long they are. Raises `InvalidSLO`."""

    audio_second_ms: float = 0.0

    def __post_init__(self) -> None:
        SLO.__post_init__(self)
        more = self.audio_second_ms
        if not is_latency(more) and not (is_number(more) and more == 0):
            raise InvalidSLO("audio_second_ms", f"must be 0 or {LATENCY_RULE}, got {more!r}")

    def latency_of(self, audio_seconds: float) -> float:
        """Of a request with so much audio, seconds."""
        return self.latency + self.audio_second_ms / 1e3 * audio_seconds
