import random

import pytest

from service.control.quantile import UpperQuantile


@pytest.mark.parametrize("start", [0.01, 1.0, 50.0])
def test_it_finds_the_quantile_from_either_side(start):
    rng = random.Random(3)
    tail = UpperQuantile(start, lowest=1e-3, highest=100.0, quantile=0.9)
    for _ in range(20_000):
        tail.follow(rng.uniform(0, 10))
    assert tail.value == pytest.approx(9.0, abs=0.6)


def test_the_size_of_an_outlier_does_not_matter():
    one, other = (UpperQuantile(1.0, lowest=0.1, highest=10.0) for _ in range(2))
    one.follow(1.1)
    other.follow(1e9)
    assert one.value == other.value


def test_it_stays_within_its_bounds():
    tail = UpperQuantile(1.0, lowest=0.5, highest=2.0)
    for number in [100.0] * 200:
        tail.follow(number)
    assert tail.value == 2.0
    for number in [0.0] * 5000:
        tail.follow(number)
    assert tail.value == 0.5
