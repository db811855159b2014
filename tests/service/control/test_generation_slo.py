import pytest

from service.control.generation_slo import GenerationSLO
from service.control.slo import InvalidSLO

GOOD = {"first_token_ms": 800, "token_ms": 60, "percentile": 95, "quality_floor": 0.9, "shed": False}


def test_it_is_in_milliseconds_and_tells_seconds():
    slo = GenerationSLO.from_dict(GOOD)
    assert (slo.latency, slo.token) == (0.8, 0.06)
    assert slo.allowed_misses == pytest.approx(0.05)
    assert slo.as_dict() == GOOD
    assert slo.patched({"token_ms": 50.5}).token_ms == 50.5


@pytest.mark.parametrize("field", GOOD)
def test_all_of_it_is_needed(field):
    with pytest.raises(InvalidSLO, match=f"{field}: is missing"):
        GenerationSLO.from_dict({name: value for name, value in GOOD.items() if name != field})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_token_ms", 0),
        ("first_token_ms", "1"),
        ("token_ms", -1),
        ("token_ms", float("inf")),
        ("token_ms", True),
        ("percentile", 100),
        ("quality_floor", 1.1),
        ("shed", 1),
    ],
)
def test_what_no_slo_can_have(field, value):
    with pytest.raises(InvalidSLO) as refused:
        GenerationSLO(**GOOD).patched({field: value})
    assert refused.value.field == field


def test_the_latency_of_other_models_is_none_of_its_fields():
    with pytest.raises(InvalidSLO, match="latency_ms: is not part of this SLO; known are first_token_ms, token_ms"):
        GenerationSLO(**GOOD).patched({"latency_ms": 20})
