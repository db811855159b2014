"""From UTF-8 texts to token ids, by a Hugging Face folder's `tokenizer.json`.

A request is tokenised when it is admitted, to know its work, and a short one on the thread that answers everybody. So a
text is not tokenised further than the model looks: first as much of it as is nearly always enough, and at the very most
`MOST_CHARACTERS` for each token that the model reads. What was found is kept until the request runs, if there is room.
"""

from dataclasses import dataclass
from pathlib import Path
from sys import getsizeof
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.zoo.remembered import Remembered

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Ids = NDArray[np.int64]
TOKENIZER = "tokenizer.json"
REMEMBERED_BYTES = 16 * 1024 * 1024
ENOUGH_CHARACTERS, MOST_CHARACTERS = 8, 32
"""For each token that the model reads. A token of English has four or five."""

LONGEST_WORD = 100
"""A cut is moved back to the end of a word, unless the word is longer than this."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """`ids` [n]; `types` [n] are 0 for the first text of a pair and 1 for the second, None for a single text."""

    ids: Ids
    types: Ids | None = None

    def __len__(self) -> int:
        return len(self.ids)


class TextReader:
    """Reads texts, and pairs of them. Calls may overlap in several threads."""

    def __init__(self, folder: Path, max_tokens: int, vocabulary: int, prompt: str = "", lower: bool = False) -> None:
        """`prompt` goes before every text; `lower`: texts are put in lower case first. Tokens past `max_tokens` are cut
        off, of a pair from the longer text.

        Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, or `ValueError` for a
        tokenizer that cannot be read, or has more tokens than the model's `vocabulary`."""
        self.max_tokens = max_tokens
        self._prompt, self._lower = prompt, lower
        self._tokenizer = _tokenizer(folder / TOKENIZER, vocabulary)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._remembered: Remembered[tuple[str, str | None], Tokens] = Remembered(
            lambda texts: self._read(*texts), _bytes_of, REMEMBERED_BYTES
        )

    def __call__(self, text: bytes, second: bytes | None = None) -> Tokens:
        """The tokens of a text, or of a pair, as many as the model looks at. The texts must be UTF-8."""
        most = MOST_CHARACTERS * self.max_tokens
        return self._remembered((start(text, most), None if second is None else start(second, most)))

    def _read(self, text: str, second: str | None) -> Tokens:
        first, encoding = self._shortened(self._prompt + text)
        if second is None:
            encoding = encoding or self._tokenizer.encode(first)
            return Tokens(np.array(encoding.ids, np.int64))
        encoding = self._tokenizer.encode(first, self._shortened(second)[0])
        return Tokens(np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64))

    def _shortened(self, text: str) -> "tuple[str, Encoding | None]":
        """The text, or a start of it that has all the tokens that are looked at; and what that is, where it had to be
        found out."""
        if self._lower:
            text = text.lower()
        enough = start(text, ENOUGH_CHARACTERS * self.max_tokens)
        if len(enough) == len(text):
            return text, None
        encoding = self._tokenizer.encode(enough)
        return (enough, encoding) if len(encoding.ids) >= self.max_tokens else (text, None)


def start(text: bytes | str, characters: int) -> str:
    """The text's first so many characters; a word that does not fit is left out, if it is none of the longest."""
    if isinstance(text, bytes):
        # No character has more than four bytes: what is behind them need not even be decoded.
        whole = len(text) <= 4 * characters
        text = text.decode() if whole else text[: 4 * characters].decode("utf-8", "ignore")
        if whole and len(text) <= characters:
            return text
    elif len(text) <= characters:
        return text
    part = text[:characters]
    word = part.rsplit(maxsplit=1)[-1] if part.strip() else ""
    short = len(word) <= LONGEST_WORD and len(word) < len(part.strip())
    return part[: part.rindex(word)] if short and part.endswith(word) else part


def _bytes_of(texts: tuple[str, str | None], tokens: Tokens) -> int:
    types = 0 if tokens.types is None else tokens.types.nbytes
    return sum(map(getsizeof, texts)) + tokens.ids.nbytes + types


def _tokenizer(path: Path, vocabulary: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{path} is no tokenizer that can be read: {error}") from None
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        raise ValueError(f"{path} has the token {largest}; config.json says vocab_size {vocabulary}")
    return tokenizer
