import math

import pytest

from service.control.slo import SLO, InvalidSLO

GOOD = {"latency_ms": 20, "percentile": 99, "quality_floor": 0.9, "shed": True}


def test_a_dict_makes_an_slo_and_back():
    assert SLO.from_dict(GOOD).as_dict() == GOOD


def test_units():
    slo = SLO(latency_ms=20, percentile=99)
    assert slo.latency == 0.02
    assert slo.allowed_misses == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_ms", 0),
        ("latency_ms", -1),
        ("latency_ms", math.nan),
        ("latency_ms", math.inf),
        ("latency_ms", 10**400),
        ("latency_ms", 1e308),
        ("latency_ms", 86_400_001),
        ("latency_ms", True),
        ("latency_ms", "20"),
        ("latency_ms", None),
        ("percentile", 0),
        ("percentile", 100),
        ("percentile", 101),
        ("percentile", math.nan),
        ("percentile", False),
        ("quality_floor", -0.01),
        ("quality_floor", 1.01),
        ("quality_floor", math.nan),
        ("quality_floor", True),
        ("shed", 1),
        ("shed", "yes"),
        ("shed", None),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(InvalidSLO, match=f"^{field}: ") as refused:
        SLO.from_dict({**GOOD, field: value})
    assert refused.value.field == field
    with pytest.raises(InvalidSLO, match=f"^{field}: "):
        SLO(**GOOD).patched({field: value})


def test_a_patch_changes_what_it_names_and_nothing_else():
    slo = SLO(**GOOD)
    assert slo.patched({"percentile": 95.5}) == SLO(20, 95.5, 0.9, True)
    assert slo.patched({}) == slo


@pytest.mark.parametrize("make", [SLO(**GOOD).patched, lambda changes: SLO.from_dict({**GOOD, **changes})])
def test_unknown_names_are_refused(make):
    with pytest.raises(InvalidSLO, match=r"latency_s.*known are latency_ms") as refused:
        make({"latency_s": 1})
    assert refused.value.field == "latency_s"


@pytest.mark.parametrize("missing", list(GOOD))
def test_replacing_an_slo_takes_all_of_it(missing):
    with pytest.raises(InvalidSLO, match=f"^{missing}: is missing"):
        SLO.from_dict({name: value for name, value in GOOD.items() if name != missing})
