import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.level import Dial
from tests.service.engine.fakes import linear_profile

PROFILE = linear_profile(least_macs=0.2, quality_loss=0.3)


@given(st.floats(0, 1))
def test_it_says_what_the_profile_says(level):
    dial, point = Dial(PROFILE), PROFILE.at(level)
    assert dial.macs_ratio(level) == pytest.approx(point.macs_ratio)
    assert dial.quality(level) == pytest.approx(point.quality)


def test_its_ends_are_the_profile_s():
    dial = Dial(PROFILE)
    assert (dial.macs_ratio(0.0), dial.quality(0.0)) == (1.0, 1.0)
    assert dial.macs_ratio(1.0) == pytest.approx(0.2)
    assert dial.quality(1.0) == pytest.approx(0.7)
