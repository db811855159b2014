import pytest

from service.errors import InvalidRequest
from service.protocol.limits import Limits
from service.protocol.non_finite import non_finite_field
from service.protocol.v2_request import parse_json_object


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"latency_ms": NaN}', "latency_ms"),
        (b'{"parameters": {"slo_ms": -Infinity}}', "parameters.slo_ms"),
        (b'{"inputs": [{"data": [1.0, [2.0, NaN]]}]}', "inputs[0].data[1][1]"),
        (b'{"parameters": {"slo_ms": 1e999}}', "parameters.slo_ms"),
        (b'{"inputs": [{"shape": [1, ' + b"9" * 400 + b"]}]}", "inputs[0].shape[1]"),
        (b'{"level": ' + b"9" * 10_000 + b"}", "level"),
        (b'{"note": "NaN"}', None),
        (b'{"latency_ms": NaN', None),
        (b'{"a": 1}', None),
        (b"[" * 50_000 + b"NaN", None),
    ],
)
def test_the_first_number_that_is_not_finite_is_found(text, field):
    assert non_finite_field(text) == field


def test_a_body_with_nan_is_refused_by_the_name_of_its_field():
    with pytest.raises(InvalidRequest, match="latency_ms"):
        parse_json_object(b'{"latency_ms": NaN}', Limits())


def test_any_other_broken_body_is_still_the_bodys_fault():
    with pytest.raises(InvalidRequest, match="body"):
        parse_json_object(b'{"latency_ms": }', Limits())
