"""What the answers of OpenAI's calls for generated text have in common."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.model import Generator
from service.engine.generation import Piece
from service.protocol.text_fields import TextFields
from service.protocol.v2_infer import parameters_of


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What each part of an answer is known by."""

    id: str
    created: int
    model: str


class TextCall(Protocol):
    """A request for text, and how it is answered: `whole`, or as `opening` (where there is one), a `chunk` for each
    piece and, where usage is asked for, `closing`. `prompt_field` is where the client gave the prompt.
    """

    @property
    def fields(self) -> TextFields: ...
    @property
    def prompt_field(self) -> str: ...
    def prompt(self, model: Generator) -> str: ...
    def whole(self, head: AnswerHead, pieces: Sequence[Piece]) -> dict[str, Any]: ...
    def opening(self, head: AnswerHead) -> dict[str, Any] | None: ...
    def chunk(self, head: AnswerHead, piece: Piece) -> dict[str, Any]: ...
    def closing(self, head: AnswerHead) -> dict[str, Any]: ...


def new_head(kind: str, model: str) -> AnswerHead:
    """Of an answer that begins now; ``kind`` is the prefix of its id."""
    return AnswerHead(f"{kind}-{secrets.token_hex(12)}", int(time.time()), model)


def usage_of(last: Piece) -> dict[str, int]:
    """The tokens of a finished generation."""
    assert last.finished is not None and last.finished.tokens is not None
    tokens = last.finished.tokens
    return {
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.generated_tokens,
        "total_tokens": tokens.prompt_tokens + tokens.generated_tokens,
    }


def sluice_of(last: Piece) -> dict[str, Any]:
    """What this server tells of a finished generation; levels and qualities are the mean over its steps."""
    assert last.finished is not None and last.finished.tokens is not None
    tokens = last.finished.tokens
    return parameters_of(last.finished) | {
        "first_token_ms": round(tokens.first_token_seconds * 1e3, 4),
        "token_ms": None if tokens.token_seconds is None else round(tokens.token_seconds * 1e3, 4),
    }


def shown(text: bytes) -> str:
    """A token's text; what is no whole character in it is U+FFFD."""
    return text.decode("utf-8", "replace")
