"""Results that are remembered as far as there is room."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from models.zoo.remembered import Remembered


@pytest.fixture
def asked():
    return []


@pytest.fixture
def lengths(asked):
    def length(text):
        asked.append(text)
        return len(text)

    return Remembered(length, cost=lambda text, length: length, room=10)


def test_what_was_asked_for_longest_ago_makes_place(lengths, asked):
    for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa"):
        assert lengths(text) == 4
    assert asked == ["aaaa", "bbbb", "cccc"]
    lengths("bbbb")
    assert asked == ["aaaa", "bbbb", "cccc", "bbbb"]
    assert lengths.taken == 8


def test_one_that_takes_more_than_the_room_is_not_remembered(lengths, asked):
    lengths("a")
    assert [lengths("x" * 11), lengths("x" * 11), lengths("a")] == [11, 11, 1]
    assert asked == ["a", "x" * 11, "x" * 11]
    assert lengths.taken == 1
    lengths("y" * 10)
    assert lengths.taken == 10


def test_threads_may_share_it(lengths):
    texts = ["x" * (number % 7) for number in range(2000)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lengths, texts)) == [len(text) for text in texts]
    assert lengths.taken <= 10
