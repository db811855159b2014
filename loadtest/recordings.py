"""Load on a model of speech: recordings as uploads to `/v1/audio/transcriptions`, judged by their words, and by
the SLO that holds for their length.

python -m loadtest --workload loadtest.recordings:asterisk …
"""

import os
from collections.abc import Sequence

import numpy as np
import orjson

from loadtest.workload import Judged, Parameters, Post, Reply, refusal
from models.zoo import speech_data
from models.zoo.log_mel import RATE
from models.zoo.speech_data import Clip
from models.zoo.word_errors import word_errors

MODEL = "whisper-tiny.en"
_BOUNDARY = "recording"


class Recordings:
    """A `Workload`: clips that have a text, one a request, each with the `parameters`. The score of an answer is
    1 − word errors a word."""

    def __init__(self, clips: Sequence[Clip], model: str = MODEL, parameters: Parameters | None = None) -> None:
        self.model = model
        self._texts = [clip.text or "" for clip in clips]
        self._seconds = [clip.seconds for clip in clips]
        self.posts = [_post(clip, model, parameters or {}) for clip in clips]

    def judge(self, number: int, reply: Reply) -> Judged:
        if reply.status != 200:
            return Judged(refusal(reply))
        try:
            answer = orjson.loads(reply.body)
            said, level = answer["text"], float(answer["sluice"]["level"])
            errors, words = word_errors(said, self._texts[number])
        except (KeyError, TypeError, ValueError, AttributeError):
            return Judged("error")
        score = max(0.0, 1 - errors / max(words, 1))
        return Judged("ok", level, score, audio_seconds=self._seconds[number])


def asterisk() -> Recordings:
    """Those recordings of Asterisk's voice menus that take 2 to 10 s, to the model that `SLUICE_SPEECH_MODEL` names."""
    return Recordings(menus(), os.environ.get("SLUICE_SPEECH_MODEL", MODEL))


def menus() -> list[Clip]:
    """The recordings that `asterisk` sends. Raises `speech_data.MissingData`."""
    return [clip for clip in speech_data.asterisk() if 2 <= clip.seconds <= 10]


def _post(clip: Clip, model: str, parameters: Parameters) -> Post:
    fields = {"model": model, "language": "en", **parameters}
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{clip.name}.wav"\r\n\r\n'
    body = b"".join([*parts, head.encode(), wav(clip.audio), f"\r\n--{_BOUNDARY}--\r\n".encode()])
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return Post("/v1/audio/transcriptions", headers, body)


def wav(audio: np.ndarray[tuple[int], np.dtype[np.float32]]) -> bytes:
    """Samples [n] at 16 kHz, −1 to 1, as a file of 16 bits (RIFF WAVE)."""
    data = (np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()
    form = np.array([1, 1], "<u2").tobytes() + np.array([RATE, 2 * RATE], "<u4").tobytes() + b"\x02\0\x10\0"
    sizes = [np.array(size, "<u4").tobytes() for size in (36 + len(data), len(form), len(data))]
    return b"RIFF" + sizes[0] + b"WAVEfmt " + sizes[1] + form + b"data" + sizes[2] + data
