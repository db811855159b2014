import math

import pytest

from service.errors import InvalidRequest
from service.protocol.parameters import V2_OPTIONS, check_parameter_types, request_options


def test_options():
    options = request_options(
        {"slo_ms": 20, "quality_floor": 0, "level": 1, "timeout": 1, "priority": 0, "custom": "x"}
    )
    assert (options.slo_ms, options.quality_floor, options.level) == (20.0, 0.0, 1.0)
    assert (options.timeout_us, options.priority) == (1, 0)


def test_a_sequence_is_ignored_since_models_keep_no_state():
    assert request_options({"sequence_id": 3, "sequence_start": True, "sequence_end": False}) == request_options({})


@pytest.mark.parametrize("name", ["headers", "triton_final_response", "triton_"])
def test_reserved_names_are_refused(name):
    with pytest.raises(InvalidRequest) as caught:
        request_options({name: True})
    assert caught.value.field == f"parameters.{name}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("slo_ms", [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, True, "20"]),
        ("quality_floor", [-0.01, 1.01, math.nan, math.inf, True, False, "0.9", 99]),
        ("level", [-0.01, 1.01, math.nan, math.inf, True, "0", -1e-9]),
        ("timeout", [0, -1, 1.0, 0.5, math.nan, math.inf, True, "1000"]),
        ("priority", [-1, 1.0, math.nan, True, "1", 2**64]),
    ],
)
def test_out_of_range(name, values):
    for value in values:
        with pytest.raises(InvalidRequest, match=f"parameters.{name}: must be") as caught:
            request_options({name: value})
        assert caught.value.field == f"parameters.{name}"


@pytest.mark.parametrize("name", ["slo_first_token_ms", "slo_token_ms"])
def test_times_of_tokens_out_of_range(name):
    for value in (0, -1, math.nan, math.inf, True, "20"):
        with pytest.raises(InvalidRequest, match=f"parameters.{name}: must be"):
            request_options({name: value}, options=V2_OPTIONS)


@pytest.mark.parametrize("value", [None, [], [1], {}, {"a": 1}])
def test_a_parameters_type(value):
    with pytest.raises(InvalidRequest) as caught:
        check_parameter_types({"fine": 1, "wrong": value}, "outputs[2].parameters")
    assert caught.value.field == "outputs[2].parameters.wrong"


@pytest.mark.parametrize("value", [[], "x", 7, True])
def test_parameters_must_be_an_object(value):
    with pytest.raises(InvalidRequest) as caught:
        check_parameter_types(value, "parameters")
    assert caught.value.field == "parameters"
