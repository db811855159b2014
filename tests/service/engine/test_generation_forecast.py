import pytest

from models.model import GateContext
from service.control.level import Ceiling
from service.engine.generation_forecast import Forecast

CEILING = Ceiling(1.0, 0.4, "")


def known(**more):
    forecast = Forecast(**more)
    for model in (forecast.tokens, forecast.prompts):
        model.overhead, model.seconds_per_gmac, model.tail.value, model.observations = 0.002, 0.1, 1.5, 100
    forecast.saw_prompt(tokens=10, macs=10 * 100_000_000)
    forecast.saw_token(200_000_000)
    return forecast


def part(skipped, level=1.0):
    return GateContext(level, macs=1000, macs_skipped=skipped)


def test_what_a_prompt_takes_at_the_ceiling():
    forecast = known()
    # Two parts, and nothing of it known to be skipped.
    assert forecast.prompt(300, CEILING) == pytest.approx(2 * 0.002 + 300 * 0.01)
    forecast.saw_part(part(600), macs_ratio=0.4)
    assert forecast.prompt(300, CEILING) == pytest.approx(2 * 0.002 + 0.4 * 300 * 0.01)


def test_a_prompt_that_the_level_does_nothing_for_has_no_work_that_scales():
    forecast = known()
    forecast.saw_part(part(0), macs_ratio=0.4)
    assert forecast.prompt_work(1e9).scalable == 0
    # A level at which the profile skips hardly anything says nothing about that.
    forecast.saw_part(part(20), macs_ratio=0.98)
    assert forecast.prompt_work(1e9).scalable == 0


def test_what_a_token_takes_in_company():
    forecast = known()
    assert forecast.token_seconds(1, 1.0) == pytest.approx(0.022)
    assert forecast.token_seconds(4, 0.05) == 0.05


def test_nothing_is_out_of_reach_while_nothing_is_known():
    assert Forecast().attainable(CEILING, 1e-9, 1e-9)
    forecast = known()
    # (2 ms + 100 ms) and, at the ceiling, (2 ms + 8 ms), each half as much again for the tail.
    assert forecast.attainable(CEILING, first_token=0.154, token=0.0151)
    assert not forecast.attainable(CEILING, first_token=0.152, token=0.0151)
    assert not forecast.attainable(CEILING, first_token=0.154, token=0.0149)
