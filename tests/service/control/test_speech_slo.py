import pytest

from service.control.slo import InvalidSLO
from service.control.speech_slo import SpeechSLO


def test_it_grows_with_the_audio():
    slo = SpeechSLO(latency_ms=100).patched({"audio_second_ms": 50})
    assert slo.latency_of(0) == slo.latency == pytest.approx(0.1)
    assert slo.latency_of(4) == pytest.approx(0.3)
    assert SpeechSLO(100).latency_of(60) == pytest.approx(0.1)
    assert SpeechSLO.from_dict(slo.as_dict()) == slo


@pytest.mark.parametrize("value", [-1, float("nan"), "1", True, 1e9])
def test_what_is_no_time_is_named(value):
    with pytest.raises(InvalidSLO, match="audio_second_ms: must be 0 or") as refused:
        SpeechSLO(latency_ms=100, audio_second_ms=value)
    assert refused.value.field == "audio_second_ms"


def test_the_rest_is_checked_too():
    with pytest.raises(InvalidSLO, match="latency_ms"):
        SpeechSLO(latency_ms=0)
    with pytest.raises(InvalidSLO, match="not part of this SLO"):
        SpeechSLO(latency_ms=1).patched({"token_ms": 1})
