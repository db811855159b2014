import math

import numpy as np
import pytest

from service.engine.request import Request, RequestOptions
from service.errors import InvalidRequest
from tests.service.engine.fakes import request


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("slo_ms", "slo_ms", 0),
        ("slo_ms", "slo_ms", -5),
        ("slo_ms", "slo_ms", math.nan),
        ("slo_ms", "slo_ms", "20"),
        ("slo_ms", "slo_ms", True),
        ("slo_ms", "slo_ms", 10**400),
        ("quality_floor", "quality_floor", 1.1),
        ("quality_floor", "quality_floor", math.nan),
        ("level", "level", -0.1),
        ("level", "level", 2),
        ("level", "level", "0.5"),
        ("timeout_us", "timeout", -1),
        ("timeout_us", "timeout", 1.5),
        ("timeout_us", "timeout", True),
        ("priority", "priority", -1),
        ("priority", "priority", 1.0),
        ("priority", "priority", 2**40),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_name_on_the_wire(option, field, value):
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as refused:
        RequestOptions(**{option: value})
    assert refused.value.field == field


def test_the_bounds_themselves_are_allowed():
    RequestOptions(quality_floor=0, level=0, timeout_us=0)
    RequestOptions(quality_floor=1, level=1, slo_ms=1e-3, timeout_us=2**60)


def test_priority_1_is_the_most_urgent_and_the_default_the_least():
    urgencies = [RequestOptions(priority=priority).urgency for priority in (1, 2, 1000, 0)]
    assert urgencies == sorted(urgencies)
    assert len(set(urgencies)) == 4


def test_a_request_sent_again_is_known_by_its_inputs():
    first, again, other = request(1.0, arrival=0.0), request(1.0, arrival=9.0, id="another"), request(2.0)
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()
    assert first.fingerprint() != request(1.0, items=2).fingerprint()
    assert first.fingerprint() != request(1.0, model="else").fingerprint()


def test_strings_are_known_by_what_they_say():
    def said(text: bytes) -> Request:
        return Request("id", "fake", {"text": np.array([bytes(bytearray(text))], object)}, arrival=0.0)

    long = b"the same words" * 10
    assert said(long).fingerprint() == said(long).fingerprint()
    assert said(long).fingerprint() != said(long + b"!").fingerprint()
