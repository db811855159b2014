"""Texts for calibrating and measuring models of language.

With Sluice come sentences of Moby Dick, and `texts` for fitting. With the package gensim come the news of Lee et al.
(2005): 300 documents, and 50 others with what people said about how alike each two of them are.
"""

import gzip
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE = Path(__file__).parent / "weights" / "moby_dick_sample.txt"
TEXTS = Path(__file__).parent / "weights" / "texts.txt.gz"
PLACES, SENTENCES = 16, 40
"""The sample is so many runs of so many sentences, from all over the book."""

GENSIM_COMMAND = "pip install --no-deps gensim==4.4.0"


class MissingData(FileNotFoundError):
    """The data set is not on this computer; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class RatedDocuments:
    """`ratings` [n, n] is how alike people found each two documents, 0 to 1, symmetric."""

    texts: list[str]
    ratings: NDArray[np.float64]

    @property
    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The indices of all pairs, each once."""
        return np.triu_indices(len(self.texts), 1)


def sample(test: bool = True) -> list[str]:
    """Sentences of Moby Dick: those that models are measured on, or, not `test`, those that their profiles are."""
    lines = SAMPLE.read_text("utf-8").splitlines()
    return [line for i, line in enumerate(lines) if (i // SENTENCES) % 2 == int(test)]


def texts() -> list[str]:
    """Texts of all lengths that nothing is measured on: addresses on the State of the Union, the World Factbook, the
    Jargon File, the Devil's Dictionary and what the sample leaves of Moby Dick, which are in the public domain,
    definitions and examples of WordNet 3.0, whose licence lies beside them, and what SmolLM2 wrote when it was asked
    for news reports and articles, of which nothing is true."""
    return gzip.decompress(TEXTS.read_bytes()).decode().splitlines()


def lee_background() -> list[str]:
    """300 news documents, 80 to 350 words each. Raises `MissingData`."""
    return _lee("lee_background.cor").read_text("latin1").splitlines()


def lee() -> RatedDocuments:
    """50 news documents that are not among those, and their ratings. Raises `MissingData`."""
    upper = np.loadtxt(_lee("similarities0-1.txt"))
    ratings = np.triu(upper, 1) + np.triu(upper, 1).T + np.eye(len(upper))
    return RatedDocuments(_lee("lee.cor").read_text("latin1").splitlines(), ratings)


def sentences(text: str, least_words: int = 5) -> list[str]:
    """A text cut after full stops, question and exclamation marks."""
    parts = re.split(r"(?<=[.!?])\s+", text)
    return [part.strip() for part in parts if len(part.split()) >= least_words]


def prose(text: str, longest: int = 3) -> list[str]:
    """Texts of different lengths out of prose whose paragraphs have empty lines between them: runs of one sentence, of
    two and so on up to `longest`, one after the other. None has a sentence that models are measured on."""
    measured, texts = set(sample()), []
    wanted = 1
    for paragraph in re.split(r"\n\s*\n", text):
        found = [one for one in sentences(" ".join(paragraph.split())) if one not in measured]
        while found:
            texts.append(" ".join(found[:wanted]))
            found, wanted = found[wanted:], wanted % longest + 1
    return texts


def read_texts(path: Path, as_prose: bool) -> list[str]:
    """The texts of a file, as prose or one a line. Raises `OSError`, or `ValueError` for a file without any."""
    return prose(path.read_text("utf-8")) if as_prose else read_lines(path)


def read_lines(path: Path) -> list[str]:
    """A user's own texts, one a line; empty lines are left out. Raises `OSError`, or `ValueError` where the file is no
    UTF-8 or has no text."""
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    texts = [line for line in lines if line]
    if not texts:
        raise ValueError(f"{path} has no texts: it must have one a line")
    return texts


def _lee(name: str) -> Path:
    package = find_spec("gensim")
    if package is None or not package.submodule_search_locations:
        raise MissingData(f"the documents of Lee et al. come with a package: {GENSIM_COMMAND}")
    path = Path(package.submodule_search_locations[0]) / "test" / "test_data" / name
    if not path.exists():
        raise MissingData(f"{path} is missing; it comes with: {GENSIM_COMMAND}")
    return path
