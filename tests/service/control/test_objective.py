import pytest

from service.control.generation_slo import GenerationSLO
from service.control.objective import objective_of
from service.control.slo import SLO, InvalidSLO
from service.control.speech_slo import SpeechSLO


@pytest.mark.parametrize("slo", [SLO(20), SpeechSLO(100, audio_second_ms=50), GenerationSLO(1000, 80)])
def test_what_a_server_shows_is_read_as_its_kind(slo):
    assert objective_of(slo.as_dict()) == slo


def test_something_else_is_refused_by_the_name_of_a_field():
    with pytest.raises(InvalidSLO, match="token_ms"):
        objective_of({**SLO(20).as_dict(), "token_ms": 5})
    with pytest.raises(InvalidSLO, match="shed: is missing"):
        objective_of({"latency_ms": 20, "percentile": 99, "quality_floor": 0.9})
