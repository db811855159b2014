"""Audio files as samples: wav, flac, mp3, ogg and what else libsndfile reads."""

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

COMMAND = "pip install 'sluice-serve[speech]'"
MAX_CHANNELS = 16
_BLOCK_SECONDS = 10


class UnreadableAudio(ValueError):
    """What holds no audio that can be taken; the message says why, and does not name the file."""


def read_audio(file: IO[bytes] | Path, rate: int, longest_seconds: float) -> NDArray[np.float32]:
    """The mean of a file's channels as samples [n] at `rate` a second.

    It is read piece by piece, so that a small file that unpacks to hours takes no more memory than `longest_seconds`.
    Raises `UnreadableAudio` for what is no audio, is empty or too long, `ModuleNotFoundError` without the packages
    soundfile and soxr.
    """
    import soundfile
    import soxr

    pieces: list[NDArray[np.float32]] = []
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.channels > MAX_CHANNELS:
                raise UnreadableAudio(f"has {sound.channels} channels, more than {MAX_CHANNELS}")
            same = sound.samplerate == rate
            resampler = None if same else soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32")
            limit, seen = int(longest_seconds * sound.samplerate), 0
            while len(block := sound.read(_BLOCK_SECONDS * sound.samplerate, dtype="float32", always_2d=True)):
                seen += len(block)
                if seen > limit:
                    raise UnreadableAudio(f"is longer than {longest_seconds:g} s")
                samples = block.mean(1)
                pieces.append(samples if resampler is None else resampler.resample_chunk(samples))
            if resampler is not None:
                pieces.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise UnreadableAudio(f"cannot be read as audio ({error}); wav, flac, mp3 and ogg can be") from None
    audio: NDArray[np.float32] = np.concatenate(pieces) if pieces else np.empty(0, np.float32)
    if not len(audio):
        raise UnreadableAudio("holds no samples")
    if not np.isfinite(audio).all():
        raise UnreadableAudio("holds samples that are no numbers")
    return np.ascontiguousarray(audio)
