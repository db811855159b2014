"""English texts made alike where they say the same, so that they can be compared word by word: case, punctuation,
contractions, hesitations, and numbers in words or digits (after the rules of Radford et al. 2022, appendix C)."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

_HESITATIONS = frozenset({"hmm", "mm", "mhm", "mmm", "uh", "um", "ah", "er"})
_CONTRACTIONS = (
    (r"\bwon't\b", "will not"),
    (r"\bcan't\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"\bshan't\b", "shall not"),
    (r"\blet's\b", "let us"),
    (r"\bok\b", "okay"),
    (r"n't\b", " not"),
    (r"'re\b", " are"),
    (r"'ll\b", " will"),
    (r"'ve\b", " have"),
    (r"'m\b", " am"),
    (r"'s\b", " is"),
    (r"'d\b", " would"),
)
_TITLES = ((r"\bmr\b", "mister"), (r"\bmrs\b", "missus"), (r"\bdr\b", "doctor"), (r"\bst\b", "saint"))

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fifth": 5,
    "eighth": 8,
    "ninth": 9,
    "twelfth": 12,
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SUFFIX = re.compile(r"(\d+)(st|nd|rd|th)")


def words_of(text: str) -> list[str]:
    """The words of a text, made alike."""
    text = unicodedata.normalize("NFKD", text).lower().replace("’", "'")
    text = "".join(character for character in text if not unicodedata.combining(character))
    text = re.sub(r"[\[(<][^\])>]*[\])>]", " ", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    text = text.replace("%", " percent ").replace("&", " and ")
    for pattern, plain in _CONTRACTIONS:
        text = re.sub(pattern, plain, text)
    words = re.findall(r"[a-z]+|\d+(?:\.\d+)?(?:st|nd|rd|th)?", text.replace("'", ""))
    spelt = " ".join(word for word in words if word not in _HESITATIONS)
    for pattern, plain in _TITLES:
        spelt = re.sub(pattern, plain, spelt)
    return list(_with_digits(spelt.split()))


def _with_digits(words: Sequence[str]) -> Iterator[str]:
    """The words, with each run that is a number in digits."""
    place = 0
    while place < len(words):
        number, length, ordinal = _number(words[place:])
        if length:
            yield f"{number}th" if ordinal else str(number)
            place += length
        else:
            yield words[place]
            place += 1


def _number(words: Sequence[str]) -> tuple[int, int, bool]:
    """The number at the beginning, of how many words it is, and whether it is an ordinal."""
    total = current = length = 0
    below = 100  # what the next word has to be, to belong to this number: behind a ten a one, behind a one nothing
    for i, word in enumerate(words):
        if word == "and" and length and below == 100 and i + 1 < len(words) and _unit(words[i + 1]):
            continue
        if (found := _unit(word)) is not None:
            value, ordinal = found
            if value >= below or (length and value == 0):
                break
            current, length = current + value, i + 1
            below = 10 if value in range(20, 100, 10) else 0
        elif length and (scale := _SCALES.get(word.removesuffix("th"))):
            total, current = (total, current * scale) if scale == 100 else (total + current * scale, 0)
            below, length, ordinal = 100, i + 1, word.endswith("th")
        else:
            break
        if ordinal:
            return total + current, length, True
    return total + current, length, False


def _unit(word: str) -> tuple[int, bool] | None:
    """The value of one word, if it is a number below a hundred, and whether it is an ordinal."""
    if word in _SMALL:
        return _SMALL.index(word), False
    if word in _TENS:
        return 20 + 10 * _TENS.index(word), False
    if word in _ORDINALS:
        return _ORDINALS[word], True
    if match := _SUFFIX.fullmatch(word):
        return int(match[1]), True
    stem = word.removesuffix("th")
    if stem != word:
        stem = stem.removesuffix("ie") + "y" if stem.endswith("ie") else stem
        if stem in _SMALL or stem in _TENS:
            found = _unit(stem)
            return (found[0], True) if found else None
    return None
