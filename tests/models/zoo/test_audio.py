import io

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from models.zoo.audio import UnreadableAudio, read_audio


def tone(rate, seconds=0.5, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.stack([wave * (i + 1) / channels for i in range(channels)], 1).astype(np.float32)


def written(samples, rate, form="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_every_format_becomes_samples_at_one_rate(form, subtype, rate):
    audio = read_audio(written(tone(rate), rate, form, subtype), 16_000, 10)
    assert audio.dtype == np.float32
    assert abs(len(audio) - 8000) < 1200  # mp3 is padded to whole frames
    spectrum = np.abs(np.fft.rfft(audio[1000:7000]))
    assert spectrum.argmax() * 16_000 / 6000 == pytest.approx(440, abs=4)
    assert np.abs(audio[2000:6000]).max() == pytest.approx(0.5, abs=0.05)


def test_channels_are_averaged():
    audio = read_audio(written(tone(16_000, channels=2), 16_000), 16_000, 10)
    assert np.abs(audio).max() == pytest.approx(0.375, abs=0.01)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (io.BytesIO(b""), "cannot be read as audio"),
        (io.BytesIO(b"no audio at all" * 100), "wav, flac, mp3 and ogg"),
        (written(tone(8000, 1.5), 8000), "is longer than 1 s"),
        (written(np.zeros((0, 1), np.float32), 8000), "no samples"),
        (written(np.full((9, 1), np.nan, np.float32), 8000, "WAV", "FLOAT"), "no numbers"),
        (written(tone(8000, 0.1, 17), 8000), "17 channels"),
    ],
)
def test_what_is_no_audio_says_why(file, why):
    with pytest.raises(UnreadableAudio, match=why):
        read_audio(file, 16_000, 1)
