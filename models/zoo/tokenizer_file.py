"""A Hugging Face folder's `tokenizer.json`, and what a file holds that was not downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_POINTER = b"version https://git-lfs"


def read_tokenizer(path: Path) -> "Tokenizer":
    """Raises `ModuleNotFoundError` without the package tokenizers, or `ValueError` for a file that is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{path} is no tokenizer that can be read: {error}{pointer_hint(path)}") from None


def pointer_hint(path: Path) -> str:
    """What to do about a file that git left a pointer in place of; empty for any other."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return ""
    return "; it is a git-lfs pointer: git lfs pull fetches the file" if is_pointer else ""
