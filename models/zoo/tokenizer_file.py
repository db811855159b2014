"""A Hugging Face folder's `tokenizer.json`."""

from pathlib import Path
from typing import TYPE_CHECKING

from models.zoo.folder import pointer_hint

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_tokenizer(path: Path) -> "Tokenizer":
    """Raises `ModuleNotFoundError` without the package tokenizers, or `ValueError` for a file that is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{path} is no tokenizer that can be read: {error}{pointer_hint(path)}") from None
