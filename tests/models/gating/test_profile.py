import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.gating.profile import OperatingPoint, Profile, lower_bound


def point(level: float, macs: float, quality: float, lower: float) -> OperatingPoint:
    return OperatingPoint(level, {"a": level}, 1 - macs, macs, 0.9 * quality, 0.9 * lower, quality, lower)


PROFILE = Profile(
    "m",
    100,
    0.95,
    "d",
    (point(0, 1, 1, 1), point(0.5, 0.5, 0.98, 0.97), point(0.75, 0.3, 0.95, 0.93), point(1, 0.1, 0.9, 0.87)),
)


def test_between_two_points_everything_is_linear():
    middle = PROFILE.at(0.25)
    assert middle.macs_ratio == pytest.approx(0.75)
    assert middle.thresholds["a"] == pytest.approx(0.25)
    assert middle.quality_lower == pytest.approx(0.985)
    assert PROFILE.at(0.5) == PROFILE.points[1]


@pytest.mark.parametrize("level", [-0.01, 1.01, float("nan")])
def test_a_level_outside_the_dial_is_an_error(level):
    with pytest.raises(ValueError, match="level"):
        PROFILE.at(level)


@given(st.floats(0, 1))
def test_the_highest_level_holds_the_floor_at_every_level_below(floor):
    highest = PROFILE.highest_level(floor)
    for share in (0, 0.3, 0.9, 1):
        assert PROFILE.at(highest * share).quality_lower >= min(floor, 1) - 1e-9


def test_a_floor_that_only_dense_meets():
    assert PROFILE.highest_level(1.0) == 0
    assert PROFILE.highest_level(0.0) == 1


def test_the_floor_is_held_against_the_lower_bound():
    assert PROFILE.highest_level(0.97) == pytest.approx(0.5)
    assert PROFILE.highest_level(0.95) == pytest.approx(0.625)


def test_a_dip_in_quality_ends_the_allowed_range():
    dip = Profile("m", 1, 0.95, "d", (point(0, 1, 1, 1), point(0.5, 0.5, 0.8, 0.8), point(1, 0.1, 0.99, 0.99)))
    assert dip.highest_level(0.9) == pytest.approx(0.25)


@given(st.floats(0.1, 1.2))
def test_the_lowest_level_does_no_more_than_was_asked(ratio):
    level = PROFILE.lowest_level(ratio)
    assert level is not None
    assert PROFILE.at(level).macs_ratio <= ratio + 1e-9
    assert level == 0 or PROFILE.at(level).macs_ratio == pytest.approx(ratio)


def test_more_than_the_profile_can_skip():
    assert PROFILE.lowest_level(0.05) is None


def test_it_survives_a_file(tmp_path):
    path = tmp_path / "m.profile.json"
    PROFILE.save(path)
    assert Profile.load(path) == PROFILE
    assert [file.name for file in tmp_path.iterdir()] == ["m.profile.json"]


@pytest.mark.parametrize(
    "points",
    [(), (point(0.1, 1, 1, 1),), (point(0, 1, 1, 1), point(0.5, 1, 1, 1)), (point(0, 1, 1, 0.99), point(1, 1, 1, 1))],
)
def test_a_table_that_is_no_profile(points):
    with pytest.raises(ValueError):
        Profile("m", 1, 0.95, "d", points)


def test_the_lower_bound_tightens_with_the_sample():
    assert lower_bound(95, 100) == pytest.approx(0.9015, abs=1e-3)  # Wilson score, one-sided 95 %
    assert lower_bound(95, 100) < lower_bound(9500, 10000) < 0.95
    assert lower_bound(0, 0) == 0
    assert 0 < lower_bound(10, 10) < 1
