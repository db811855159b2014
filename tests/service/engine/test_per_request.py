"""What one request may ask for itself, amid others that ask for nothing; in virtual time."""

from random import Random
from statistics import mean

import pytest

from service.control.slo import SLO
from service.engine.hosted import HostedModel
from service.errors import Expired, Refused
from tests.service.engine.fakes import MACS, FakeModel, linear_profile, request
from tests.service.engine.virtual import Lost, Served, learned, simulate

DENSE = 0.003
SLO_MS = 18.0


def seconds(share):
    """3 ms dense, a tenth of it whatever is skipped: a quarter at level 1, which does a sixth of the work."""
    return DENSE * (0.1 + 0.9 * share)


def hosted(latency_ms=SLO_MS, floor=0.9, shed=True):
    """Level 1 has a quality of 0.9."""
    model = FakeModel(profile=linear_profile(least_macs=1 / 6, quality_loss=0.1))
    return learned(HostedModel(model, SLO(latency_ms, 99, floor, shed)), seconds, MACS)


def mixed(load, duration, every, **options):
    """Even arrivals at `load` times the dense capacity; every n-th has the options."""
    gap = DENSE / load
    return [
        request(arrival=index * gap, **(options if index % every == 0 else {})) for index in range(int(duration / gap))
    ]


def split(results, every):
    """Those with the options, and the others."""
    ordered = sorted(results, key=lambda result: result.arrival)
    return ordered[::every], [result for index, result in enumerate(ordered) if index % every]


def share_met(results):
    return mean(isinstance(result, Served) and result.met for result in results)


def latencies(results):
    return [result.finished - result.arrival for result in results if isinstance(result, Served)]


def levels(results):
    return [result.level for result in results if isinstance(result, Served)]


def test_a_tighter_slo_of_its_own_is_kept_under_a_load_that_makes_others_wait():
    tight, others = split(simulate(hosted(), mixed(1.5, 3, every=10, slo_ms=5.0), seconds), 10)
    assert share_met(tight) >= 0.99
    assert max(latencies(tight)) <= 0.005 + 1e-9
    assert share_met(others) >= 0.99
    assert max(latencies(others)) > 0.005


def test_a_wider_slo_of_its_own_waits_behind_and_is_judged_by_it():
    wide, others = split(simulate(hosted(), mixed(1.5, 3, every=10, slo_ms=200.0), seconds), 10)
    assert share_met(wide) == 1
    assert max(latencies(wide)) > SLO_MS / 1e3
    assert share_met(others) >= 0.99


def test_a_floor_of_its_own_bounds_its_level_and_no_other():
    own, others = split(simulate(hosted(), mixed(2.0, 3, every=10, quality_floor=0.98), seconds), 10)
    assert 0 < max(levels(own)) <= 0.2 + 1e-9
    assert mean(levels(others)) > 0.4
    assert share_met([*own, *others]) >= 0.99


def test_a_lower_floor_of_its_own_frees_its_level():
    own, others = split(simulate(hosted(floor=0.98), mixed(2.0, 2, every=2, quality_floor=0.9), seconds), 2)
    assert max(levels(others)) <= 0.2 + 1e-9
    assert max(levels(own)) > 0.5


def test_a_pinned_level_is_neither_raised_nor_lowered_and_others_make_room_for_it():
    own, others = split(simulate(hosted(), mixed(1.5, 3, every=4, level=0.0), seconds), 4)
    assert set(levels(own)) == {0.0}
    assert share_met([*own, *others]) >= 0.99
    without = simulate(hosted(), mixed(1.5, 3, every=4), seconds)
    assert mean(levels(others)) > mean(levels(without)) + 0.05


def test_misses_of_pinned_levels_are_not_answered_by_feedback():
    model = hosted(shed=False)
    results = simulate(model, mixed(2.0, 2, every=1, level=0.0), seconds)
    assert share_met(results) < 0.5
    assert model.margin(request()).value == 1.0


def test_misses_of_a_client_with_an_slo_of_its_own_cost_the_others_nothing():
    model = hosted(shed=False)
    random = Random(0)
    simulate(model, mixed(0.6, 5, every=1, slo_ms=12.0), lambda share: seconds(share) + (random.random() < 0.1) * 0.01)
    assert model.margin(request(slo_ms=12.0)).value > 1.05
    assert model.margin(request()).value == 1.0


def test_a_timeout_is_kept_apart_from_the_slo():
    """It neither hurries a request nor lets it be late: what is not there by then is an error, whatever the SLO."""
    served, dense = simulate(hosted(), [request(arrival=0.0, timeout_us=10_000), request(arrival=1.0)], seconds)
    assert served.level == dense.level == 0.0
    assert served.finished == pytest.approx(dense.finished - 1.0)
    (late,) = simulate(hosted(), [request(arrival=0.0, level=0.0, timeout_us=2_900)], seconds)
    assert isinstance(late, Lost)
    assert isinstance(late.error, Expired)
    assert late.at == pytest.approx(DENSE)


def test_a_timeout_of_0_is_none():
    (served,) = simulate(hosted(), [request(arrival=0.0, timeout_us=0)], seconds)
    assert isinstance(served, Served)


def test_the_urgent_go_first_and_are_let_in_where_others_are_refused():
    """Eight times the dense capacity, of which level 1 can do half; one in ten is urgent."""
    urgent, others = split(simulate(hosted(), mixed(8.0, 2, every=10, priority=1), seconds), 10)
    assert share_met(urgent) >= 0.99
    assert mean(latencies(urgent)) < mean(latencies(others)) / 3
    assert 0.3 < share_met(others) < 0.5
    assert all(isinstance(result.error, Refused | Expired) for result in others if isinstance(result, Lost))


def test_of_two_priorities_the_lower_number_goes_first_and_the_default_last():
    traffic = [request(arrival=0.0, level=0.0)]
    traffic += [request(arrival=0.001 + index * 1e-4, level=0.0, priority=p) for index, p in enumerate((0, 7, 2, 1))]
    results = simulate(hosted(latency_ms=1000), traffic, seconds)
    first, default, seven, two, one = sorted(results, key=lambda result: result.arrival)
    assert first.finished < one.finished < two.finished < seven.finished < default.finished


@pytest.mark.parametrize("shed", [True, False])
def test_shedding_is_the_slo_s_to_say_and_the_timeout_the_client_s(shed):
    """A queue of half a second behind an SLO of 18 ms, from clients of whom every other waits for 100 ms only."""
    results = simulate(hosted(shed=shed), mixed(100.0, 0.02, every=2, timeout_us=100_000), seconds)
    hasty, patient = split(results, 2)
    refused = [result for result in results if isinstance(result, Lost) and isinstance(result.error, Refused)]
    assert bool(refused) == shed
    if not shed:
        assert all(isinstance(result, Served) for result in patient)
        assert max(latencies(patient)) > 0.2
        assert max(latencies(hasty)) <= 0.1
        assert any(isinstance(result, Lost) and isinstance(result.error, Expired) for result in hasty)
