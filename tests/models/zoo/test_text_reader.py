import shutil
import time

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.zoo.text_reader import ENOUGH_CHARACTERS, MOST_CHARACTERS, TextReader, start
from tests.models.zoo.random_bert import WORDS, write_random_bert

VOCABULARY = 4 + len(WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def whole(folder):
    """The tokens of a text of which nothing is cut off beforehand."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(20)
    return lambda *texts: tokenizer.encode(*texts).ids


def test_a_start_of_a_text_has_the_same_tokens(folder, whole):
    reader = TextReader(folder, 20, VOCABULARY)
    random = np.random.default_rng(0)
    for length in (1, 10, 25, 30, 40, 60, 500):
        text = " ".join(random.choice(WORDS, length))
        assert reader(text.encode()).ids.tolist() == whole(text)
        wide = text.replace(" ", " " * 9)  # too few tokens where it is looked first
        assert reader(wide.encode()).ids.tolist() == whole(wide)


def test_a_pair_is_cut_at_its_longer_text(folder, whole):
    reader = TextReader(folder, 20, VOCABULARY)
    long, short = "the sea was old " * 100, "a white whale"
    for pair in ((long, short), (short, long), (long, long)):
        tokens = reader(*(text.encode() for text in pair))
        assert tokens.ids.tolist() == whole(*pair)
        assert len(tokens.types) == 20
        assert tokens.types[0] == 0
        assert tokens.types[-1] == 1


def test_no_more_of_a_text_is_tokenised_than_the_model_looks_at(folder, monkeypatch):
    reader = TextReader(folder, 20, VOCABULARY)
    seen = []

    class Watching:
        def encode(self, *texts):
            seen.append(sum(len(text) for text in texts))
            return real.encode(*texts)

    real, reader._tokenizer = reader._tokenizer, Watching()
    reader(b"the sea was old " * 100_000)
    assert seen == [pytest.approx(ENOUGH_CHARACTERS * 20, abs=20)]
    seen.clear()
    reader(b" " * 1_000_000 + b"sea")
    assert max(seen) <= MOST_CHARACTERS * 20


def test_a_long_text_takes_no_longer_than_one_that_fills_the_model(folder):
    reader = TextReader(folder, 20, VOCABULARY)

    def seconds(text):
        times = []
        for i in range(5):
            started = time.perf_counter()
            reader(b"%d " % i + text)
            times.append(time.perf_counter() - started)
        return min(times)

    text = b"the sea was old " * 20
    assert seconds(text * 5000) < 3 * seconds(text) + 2e-3


def test_a_cut_is_at_the_end_of_a_word():
    assert start("one two three", 100) == "one two three"
    assert start("one two three", 10) == "one two "
    assert start("one two three", 8) == "one two "
    assert start(b"one two three", 6) == "one "
    assert start("wordwithoutend" * 20, 50) == ("wordwithoutend" * 20)[:50]
    assert start("a " + "x" * 300, 200) == "a " + "x" * 198
    assert start("\N{WHALE}".encode() * 10, 3) == "\N{WHALE}" * 3
    assert start(b"", 5) == ""
    assert start(b" " * 50, 5) == " " * 5


def test_lower_case_and_a_prompt(folder, whole):
    reader = TextReader(folder, 20, VOCABULARY, prompt="The sea ", lower=True)
    assert reader(b"WAS old").ids.tolist() == whole("the sea was old")


def test_a_tokenizer_that_cannot_be_used_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing; .*save_pretrained"):
        TextReader(tmp_path, 20, VOCABULARY)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unheard"}}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer that can be read"):
        TextReader(tmp_path, 20, VOCABULARY)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    with pytest.raises(ValueError, match=rf"token {VOCABULARY - 1}; config\.json says vocab_size 7"):
        TextReader(tmp_path, 20, 7)
