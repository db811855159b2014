"""The log-mel spectrum that Whisper hears (Radford et al. 2022): Slaney's filters (Auditory Toolbox, 1998) on Hann
windows of 25 ms, every 10 ms, at 16 kHz."""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]

RATE = 16_000
"""Samples a second."""
WINDOW, HOP = 400, 160
"""Samples of a frame, and from one frame to the next."""
FRAMES_PER_SECOND = RATE // HOP

_LEAST_POWER = 1e-10
_DECADES = 8.0
"""What is so much fainter than the loudest is silence."""
_SPEECH_DECADES = 4.0
"""A frame whose loudest band is fainter than the loudest of all by so much is no speech: 40 dB."""


def log_mel(samples: Array, mels: int, frames: int) -> Array:
    """The spectrum [frames, mels] of samples [n] at 16 kHz, followed by silence: n is 1 to frames · HOP.

    Frames of silence alone are not transformed: what that gives is known. Raises `ValueError` for another n."""
    if not 1 <= len(samples) <= frames * HOP:
        raise ValueError(f"samples: must be 1 to {frames * HOP}, got {len(samples)}")
    heard = min(frames, -(-(len(samples) + WINDOW // 2) // HOP))
    mirrored = _mirrored(samples, frames * HOP, (heard - 1) * HOP + WINDOW)
    spectrum = np.fft.rfft(sliding_window_view(mirrored, WINDOW)[::HOP] * _hann())
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    loudness = np.log10(np.maximum(power @ mel_filters(mels), _LEAST_POWER))
    faintest = max(float(loudness.max()) - _DECADES, np.log10(_LEAST_POWER))
    result = np.full((frames, mels), faintest, np.float32)
    result[:heard] = np.maximum(loudness, faintest)
    result += 4
    result /= 4
    return result


def _mirrored(samples: Array, length: int, count: int) -> NDArray[np.float64]:
    """The first `count` of samples and silence, `length` in all, with half a window before and behind in which what is
    next to it is mirrored. Not by `np.pad`, which copies the silence of a window twice for this."""
    half = WINDOW // 2
    mirrored = np.zeros(count)
    heard = min(len(samples), count - half)
    mirrored[half : half + heard] = samples[:heard]
    mirrored[:half] = mirrored[2 * half : half : -1]
    behind = max(count - half - length, 0)
    mirrored[count - behind :] = mirrored[count - behind - 2 : count - 2 * behind - 2 : -1]
    return mirrored


def speech_frames(spectrum: Array) -> int:
    """The number of frames up to the last that may be speech, of a spectrum [frames, mels] that `log_mel` made."""
    loud = spectrum > spectrum.max() - _SPEECH_DECADES / 4
    return int(loud.tobytes().rfind(1) // spectrum.shape[1]) + 1  # bytes are searched from behind, and −1 is none


@cache
def mel_filters(mels: int) -> NDArray[np.float64]:
    """Triangles [frequencies, mels] from 0 to 8 kHz, evenly spaced in mel, each of the area 1 (in Hz)."""
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    edges = _from_mel(np.linspace(0, _to_mel(RATE / 2), mels + 2))
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return filters


@cache
def _hann() -> NDArray[np.float64]:
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return window


def _to_mel(hertz: float) -> float:
    """Linear up to 1 kHz, logarithmic above."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hertz: NDArray[np.float64] = np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))
    return hertz
