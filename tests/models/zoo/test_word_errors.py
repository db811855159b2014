import numpy as np
import pytest

from models.zoo.word_errors import edits, rate, rate_bounds, word_errors


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("abcd", "bcde", 2)],
)
def test_the_edit_distance(a, b, count):
    assert edits(a, b) == edits(b, a) == count


def test_errors_are_of_words_made_alike():
    assert word_errors("Press 1, please!", "press one") == (1, 2)
    assert word_errors("", "two words") == (2, 2)


def test_bounds_are_around_the_rate_and_shrink_with_more_texts():
    random = np.random.default_rng(0)
    words = np.full(400, 10)
    errors = random.binomial(10, 0.1, 400)
    low, high = rate_bounds(errors, words)
    assert low < rate(errors, words) < high
    assert (high - low) * 1.5 < np.subtract(*reversed(rate_bounds(errors[:100], words[:100])))
    assert rate_bounds(errors, words, errors) == (0, 0)
    assert rate_bounds(errors + 1, words, errors) == pytest.approx((0.1, 0.1))
