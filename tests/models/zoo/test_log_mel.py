import numpy as np
import pytest

from models.zoo.log_mel import HOP, RATE, log_mel, mel_filters


def sound(seconds, seed=0):
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * time) for f in (180, 440, 2500)) * np.abs(np.sin(2 * time))
    return (0.1 * tones + 0.01 * random.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def extractor():
    transformers = pytest.importorskip("transformers")
    return {mels: transformers.WhisperFeatureExtractor(feature_size=mels) for mels in (80, 128)}


@pytest.mark.parametrize(("seconds", "mels"), [(0.05, 80), (2.37, 80), (29.99, 80), (30, 128), (1, 128)])
def test_it_is_what_the_oracle_extracts(extractor, seconds, mels):
    samples = sound(seconds)
    wanted = extractor[mels]._np_extract_fbank_features(
        np.pad(samples, (0, 30 * RATE - len(samples)))[None].astype(np.float64), "cpu"
    )[0]
    assert np.abs(log_mel(samples, mels, 3000) - wanted.T).max() < 1e-4


def test_filters_are_triangles_of_area_one():
    filters = mel_filters(80)
    assert filters.shape == (201, 80)
    assert filters.min() == 0
    areas = filters.sum(0) * RATE / 400
    assert areas[40:] == pytest.approx(1, abs=0.1)
    assert areas.mean() == pytest.approx(1, abs=0.02)


def test_silence_is_silence():
    assert np.ptp(log_mel(np.zeros(1000, np.float32), 80, 100)) == 0


@pytest.mark.parametrize("samples", [0, 100 * HOP + 1])
def test_more_than_a_window_is_refused(samples):
    with pytest.raises(ValueError, match="samples: must be 1 to 16000"):
        log_mel(np.zeros(samples, np.float32), 80, 100)
