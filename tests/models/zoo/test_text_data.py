import pytest

from models.zoo import text_data
from models.zoo.text_data import MissingData


def test_the_two_halves_of_the_sample_share_nothing():
    test, other = text_data.sample(), text_data.sample(test=False)
    assert len(test) == len(other) == text_data.PLACES * text_data.SENTENCES // 2
    assert not set(test) & set(other)
    assert text_data.SAMPLE.stat().st_size < 100_000


def test_sentences_end_where_they_do():
    assert text_data.sentences("It is a long way home. No! What is that over there?", 3) == [
        "It is a long way home.",
        "What is that over there?",
    ]


def test_a_users_file_has_a_text_a_line(tmp_path):
    (tmp_path / "texts").write_text("one\n\n two \n")
    assert text_data.read_lines(tmp_path / "texts") == ["one", "two"]
    (tmp_path / "texts").write_text("\n\n")
    with pytest.raises(ValueError, match="one a line"):
        text_data.read_lines(tmp_path / "texts")


def test_what_is_missing_comes_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(text_data, "find_spec", lambda name: None)
    with pytest.raises(MissingData, match=r"pip install --no-deps gensim"):
        text_data.lee_background()


def test_the_news_are_read_and_their_ratings_are_symmetric():
    try:
        background, rated = text_data.lee_background(), text_data.lee()
    except MissingData as missing:
        pytest.skip(str(missing))
    assert len(background) >= 299
    assert rated.ratings.shape == (len(rated.texts), len(rated.texts)) == (50, 50)
    assert (rated.ratings == rated.ratings.T).all()
    assert len(rated.pairs[0]) == 1225
