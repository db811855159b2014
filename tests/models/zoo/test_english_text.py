import pytest

from models.zoo.english_text import words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello world"),
        ("Please enter your password... [beep] (softly) <noise>", "please enter your password"),
        ("It's what you'll want; don't, won't, can't.", "it is what you will want do not will not can not"),
        ("um, well, uh OK", "well okay"),
        ("twenty-one", "21"),
        ("one hundred and five", "105"),
        ("one hundred and one dogs and cats", "101 dogs and cats"),
        ("two thousand three hundred four", "2304"),
        ("three million", "3000000"),
        ("press one two three", "press 1 2 3"),
        ("press one or two", "press 1 or 2"),
        ("twenty twenty", "20 20"),
        ("zero", "0"),
        ("twentieth, 20th, twenty-first, hundredth of a month", "20th 20th 21th hundredth of a month"),
        ("1,234.5 %", "1234.5 percent"),
        ("Mr. Smith & Dr. Who", "mister smith and doctor who"),
        ("five P.M. or 5 pm", "5 pm or 5 pm"),
        ("Café naïve", "cafe naive"),
        ("", ""),
    ],
)
def test_texts_that_say_the_same_are_alike(text, words):
    assert " ".join(words_of(text)) == words
