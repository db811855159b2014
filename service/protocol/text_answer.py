"""What the answers of OpenAI's calls for generated text have in common."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.model import Generator
from service.engine.generation import Piece
from service.engine.request import Finished, TokenTimes
from service.engine.whole_texts import together
from service.protocol.text_fields import TextFields
from service.protocol.v2_infer import parameters_of


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What each part of an answer is known by."""

    id: str
    created: int
    model: str


Prompt = str | list[int]
"""A text, or the ids of its tokens."""


class TextCall(Protocol):
    """A request for text, and how it is answered: `whole`, of the pieces of each choice, or, with the number of their
    choice, as `opening` (where there is one) and a `chunk` for each piece, and `closing` where usage is asked for.

    Of each of the `prompts` there are `fields.choices` choices, one after the other. `prompt_field` is where the client
    gave the prompt of a number.
    """

    @property
    def fields(self) -> TextFields: ...
    def prompt_field(self, number: int) -> str: ...
    def prompts(self, model: Generator) -> Sequence[Prompt]: ...
    def whole(self, head: AnswerHead, choices: Sequence[Sequence[Piece]]) -> dict[str, Any]: ...
    def opening(self, head: AnswerHead, choice: int) -> dict[str, Any] | None: ...
    def chunk(self, head: AnswerHead, choice: int, piece: Piece) -> dict[str, Any]: ...
    def closing(self, head: AnswerHead) -> dict[str, Any]: ...


def new_head(kind: str, model: str) -> AnswerHead:
    """Of an answer that begins now; ``kind`` is the prefix of its id."""
    return AnswerHead(f"{kind}-{secrets.token_hex(12)}", int(time.time()), model)


def ending(last: Sequence[Piece], choices: int) -> dict[str, Any]:
    """`usage` and `sluice` of finished generations, by the last piece of each; a prompt counts once for its
    `choices`.
    """
    tokens = [_finished(piece)[1] for piece in last]
    prompts = sum(one.prompt_tokens for one in tokens[::choices])
    generated = sum(one.generated_tokens for one in tokens)
    usage = {"prompt_tokens": prompts, "completion_tokens": generated, "total_tokens": prompts + generated}
    return {"usage": usage, "sluice": sluice_of(last)}


def sluice_of(last: Sequence[Piece]) -> dict[str, Any]:
    """What this server tells of finished generations; levels and qualities are the mean over their steps."""
    finished = _finished(last[0])[0] if len(last) == 1 else together([_finished(piece)[0] for piece in last])
    assert finished.tokens is not None
    tokens = finished.tokens
    return parameters_of(finished) | {
        "first_token_ms": round(tokens.first_token_seconds * 1e3, 4),
        "token_ms": None if tokens.token_seconds is None else round(tokens.token_seconds * 1e3, 4),
    }


def _finished(last: Piece) -> tuple[Finished, TokenTimes]:
    assert last.finished is not None and last.finished.tokens is not None
    return last.finished, last.finished.tokens


def shown(text: bytes) -> str:
    """A token's text; what is no whole character in it is U+FFFD."""
    return text.decode("utf-8", "replace")
