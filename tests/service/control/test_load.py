import pytest

from service.control.load import LoadEstimate, Work


def test_work_at_a_share():
    assert Work(0.001, 0.004).at(0.5) == pytest.approx(0.003)
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


def steady(rate, seconds, work):
    load = LoadEstimate()
    for index in range(int(rate * seconds)):
        load.arrive(index / rate, work)
    return load


def test_a_steady_stream_is_expected_to_go_on():
    expected = steady(200, 5, Work(0.001, 0.003)).expected(5.0, horizon=1.0)
    assert expected.fixed == pytest.approx(0.2, rel=0.03)
    assert expected.scalable == pytest.approx(0.6, rel=0.03)


def test_one_request_however_large_says_nothing_of_the_next():
    load = LoadEstimate()
    load.arrive(0.0, Work(0.1, 10.0))
    assert load.expected(0.0, horizon=1.0) == Work()


def test_a_burst_is_forgotten_in_a_second_or_two():
    load = steady(1000, 3, Work(0.0, 0.002))
    assert load.expected(3.0, 1.0).scalable > 1.9
    assert load.expected(4.0, 1.0).scalable < 0.3
    assert load.expected(10.0, 1.0) == Work()
