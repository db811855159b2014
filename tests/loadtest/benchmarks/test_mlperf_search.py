import pytest

from loadtest.benchmarks.mlperf_search import Search


@pytest.mark.parametrize("limit", [12.0, 100.0, 101.0, 970.0])
def test_the_highest_rate_is_found_within_the_precision(limit):
    tried = []

    def passes(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = Search(start=100.0, precision=1.03).highest(passes)
    assert limit / 1.03 <= found <= limit
    assert found in tried
    assert len(tried) <= 13


@pytest.mark.parametrize("passes", [lambda _: False, lambda _: True])
def test_without_a_bracket_there_is_no_rate(passes):
    with pytest.raises(RuntimeError, match="no highest rate"):
        Search(start=100.0).highest(passes)


def test_what_is_not_confirmed_is_lowered():
    search = Search(start=100.0, precision=1.1)
    assert search.confirmed(100.0, lambda _: True) == 100
    assert search.confirmed(100.0, lambda rate: rate < 90) == pytest.approx(100 / 1.1**2)
    with pytest.raises(RuntimeError, match="confirmed"):
        search.confirmed(100.0, lambda _: False)
