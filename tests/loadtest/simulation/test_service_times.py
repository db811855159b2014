from statistics import mean, median, pstdev

import pytest

from loadtest.simulation.model import SimulatedModel, straight_profile
from loadtest.simulation.service_times import ServiceTimes, from_profile, log_normal, measure
from models.model import GateContext

MACS = 1000


def context(level, items=1):
    return GateContext(level, macs=items * MACS)


def test_between_measured_levels_it_is_linear():
    times = ServiceTimes([0, 0.5, 1], [0.004, 0.003, 0.001], MACS)
    assert [times.expected(level) for level in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(
        [0.004, 0.0035, 0.003, 0.002, 0.001]
    )
    assert times.dense == 0.004


def test_a_batch_takes_its_number_of_items():
    times = ServiceTimes([0, 1], [0.004, 0.001], MACS)
    assert times(context(1, items=8)) == pytest.approx(8 * times(context(1)))


def test_every_run_is_off_by_one_of_the_factors():
    times = ServiceTimes([0, 1], [0.004, 0.001], MACS, noise=[0.5, 2.0])
    runs = [times(context(0)) for _ in range(200)]
    assert set(runs) == {0.002, 0.008}


def test_a_seed_draws_the_same_noise_again():
    def runs(seed):
        times = ServiceTimes([0, 1], [0.004, 0.001], MACS, log_normal(0.3), seed)
        return [times(context(0)) for _ in range(20)]

    assert runs(1) == runs(1) != runs(2)


def test_log_normal_noise_has_a_median_of_1_and_the_spread_asked_for():
    factors = log_normal(0.2, count=10_000)
    assert median(factors) == pytest.approx(1, abs=0.01)
    assert pstdev(factors) == pytest.approx(0.2, rel=0.1)
    assert set(log_normal(0.0)) == {1.0}


@pytest.mark.parametrize(
    ("levels", "seconds", "noise", "message"),
    [
        ([0], [0.1], [1.0], "levels that rise from 0 to 1"),
        ([0, 0.5], [0.1, 0.1], [1.0], "levels that rise from 0 to 1"),
        ([0.1, 1], [0.1, 0.1], [1.0], "levels that rise from 0 to 1"),
        ([0, 0.7, 0.5, 1], [0.1] * 4, [1.0], "levels that rise from 0 to 1"),
        ([0, 0, 1], [0.1] * 3, [1.0], "levels that rise from 0 to 1"),
        ([0, 1], [0.1], [1.0], "one for each level"),
        ([0, 1], [0.1, 0.0], [1.0], "above 0 s"),
        ([0, 1], [0.1, 0.1], [], "noise factors"),
        ([0, 1], [0.1, 0.1], [1.0, -1.0], "noise factors"),
    ],
)
def test_times_that_cannot_be_are_refused(levels, seconds, noise, message):
    with pytest.raises(ValueError, match=message):
        ServiceTimes(levels, seconds, MACS, noise)


def test_a_profile_saves_its_macs_and_never_the_overhead():
    profile = straight_profile(least_macs=0.2)
    times = from_profile(profile, dense=0.010, item_macs=MACS, overhead=0.25)
    assert times.dense == pytest.approx(0.010)
    assert times.expected(1.0) == pytest.approx(0.010 * (0.25 + 0.75 * 0.2))


def test_a_model_is_measured_level_by_level():
    """By a clock that moves only while the model runs, and less at a higher level."""
    model = SimulatedModel(straight_profile())
    clock = 0.0

    class Timed:
        def __getattr__(self, name):
            return getattr(model, name)

        def run(self, inputs, context):
            nonlocal clock
            clock += 0.004 - 0.003 * context.level
            return model.run(inputs, context)

    times = measure(Timed(), {"item": [0]}, runs=10, levels=(0.0, 0.5, 1.0), clock=lambda: clock)
    assert times.seconds == pytest.approx((0.004, 0.0025, 0.001))
    assert mean(times.noise) == pytest.approx(1.0)
    assert len(times.noise) == 30
