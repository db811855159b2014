"""What may follow, when to stop, and the segments that come of it."""

import numpy as np
import pytest

from models.zoo.speech_decoding import Said, keep_times_in_order, repeated
from models.zoo.speech_segments import compression_ratio, is_silence, segments_of
from models.zoo.whisper_files import SpeechTokens

END, BEGIN = 10, 14
TOKENS = SpeechTokens(
    start=11, end=END, no_timestamps=13, previous=12, no_speech=None, task=12, languages={}, suppressed=(),
    suppressed_first=(),
)  # fmt: skip


def possible(said, logits=None):
    logits = np.zeros(BEGIN + 100, np.float32) if logits is None else logits
    keep_times_in_order(logits, said, TOKENS)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


TEXT, TIMES = set(range(BEGIN)), set(range(BEGIN, BEGIN + 100))


def likely_text():
    logits = np.zeros(BEGIN + 100, np.float32)
    logits[3] = 20
    return logits


def test_a_time_is_first_and_in_the_first_second():
    assert possible([]) == set(range(BEGIN, BEGIN + 51))


def test_text_follows_the_first_time():
    assert possible([BEGIN + 5]) == TEXT


def test_behind_text_come_more_or_a_later_time():
    assert possible([BEGIN + 5, 3], likely_text()) == TEXT | {token for token in TIMES if token > BEGIN + 5}


def test_behind_the_time_that_ends_a_text_comes_another_or_the_end():
    found = possible([BEGIN + 5, 3, BEGIN + 9])
    assert not found & set(range(END))
    assert min(found & TIMES) == BEGIN + 9


def test_where_times_together_are_likelier_than_any_text_one_is_next():
    assert possible([BEGIN, 3]) == TIMES - {BEGIN}


@pytest.mark.parametrize(
    ("tokens", "surplus"),
    [
        ([1, 2, 3, 4], 0),
        ([7] * 15, 0),
        ([7] * 16, 15),
        ([5, 6] * 7, 0),
        ([1, *[5, 6] * 8], 14),
        ([1, 2, 3, 4, 5] * 4, 15),
        ([1, 2, 3, 4, 5] * 3, 0),
        ([5, 6] * 8 + [1], 0),
    ],
)
def test_a_loop_is_a_phrase_over_and_over(tokens, surplus):
    assert repeated(tokens) == surplus


def segments(tokens, seconds=30.0):
    said = Said(tokens=tokens)
    found, understood = segments_of(said, TOKENS, lambda ids: "".join(f" {id}" for id in ids), 60.0, seconds)
    return [(s.start, s.end, s.text) for s in found], understood


def at(seconds):
    return BEGIN + round(seconds / 0.02)


def test_pairs_of_times_make_segments():
    said = [at(0), 1, 2, at(1.2), at(1.2), 3, at(1.8)]
    assert segments(said) == ([(60, 61.2, " 1 2"), (61.2, 61.8, " 3")], 30)


def test_what_is_not_finished_is_heard_again():
    said = [at(0), 1, at(1.2), at(1.2), 3, 4]
    assert segments(said) == ([(60, 61.2, " 1")], pytest.approx(1.2))
    assert segments([at(0), 1, at(1.2), at(1.2)]) == ([(60, 61.2, " 1")], pytest.approx(1.2))


def test_text_without_times_is_one_segment_of_the_window():
    assert segments([1, 2], 4.5) == ([(60, 64.5, " 1 2")], 4.5)
    assert segments([], 4.5) == ([], 4.5)
    assert segments([at(0), 1, at(20)], 4.5) == ([(60, 64.5, " 1")], 4.5)


def test_silence_is_where_both_say_so():
    assert is_silence(Said([1], log_probability=-3.0, no_speech=0.9))
    assert not is_silence(Said([1], log_probability=-0.5, no_speech=0.9))
    assert not is_silence(Said([1], log_probability=-3.0, no_speech=0.1))


def test_what_repeats_itself_compresses_well():
    assert compression_ratio("over and over " * 20) > 5 > 1.5 > compression_ratio("a short text")
    assert compression_ratio("") == 1
