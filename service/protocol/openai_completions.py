"""``POST /v1/completions`` as OpenAI's clients use it: texts in, how they go on out, whole or streamed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.model import Generator
from service.engine.generation import Piece, Token
from service.errors import InvalidRequest
from service.protocol.limits import Limits
from service.protocol.text_answer import AnswerHead, Prompt, ending, shown
from service.protocol.text_fields import (
    MOST_CHOICES,
    MOST_LOGPROBS,
    TextFields,
    given,
    refuse,
    text_fields,
    whole_number,
)
from service.protocol.v2_request import parse_json_object

USUAL_TOKENS = 16
"""What the API has where a request does not say."""
_KNOWN = frozenset(("prompt", "best_of", "echo", "suffix"))


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A parsed request, and how it is answered; see `service.protocol.text_answer.TextCall`."""

    fields: TextFields
    given: tuple[Prompt, ...]
    is_list: bool

    def prompt_field(self, number: int) -> str:
        return f"prompt[{number}]" if self.is_list else "prompt"

    def prompts(self, model: Generator) -> Sequence[Prompt]:
        return self.given

    def whole(self, head: AnswerHead, choices: Sequence[Sequence[Piece]]) -> dict[str, Any]:
        made = []
        for number, pieces in enumerate(choices):
            tokens = [token for piece in pieces for token in piece.tokens]
            text = "".join(piece.text for piece in pieces)
            made.append(self._choice(number, text, tokens, pieces[-1].finish_reason))
        last = [pieces[-1] for pieces in choices]
        return self._described(head) | {"choices": made} | ending(last, self.fields.choices)

    def opening(self, head: AnswerHead, choice: int) -> dict[str, Any] | None:
        return None

    def chunk(self, head: AnswerHead, choice: int, piece: Piece) -> dict[str, Any]:
        made = self._choice(choice, piece.text, piece.tokens, piece.finish_reason)
        return self._described(head) | {"choices": [made]}

    def closing(self, head: AnswerHead) -> dict[str, Any]:
        return self._described(head) | {"choices": []}

    def _choice(self, index: int, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": self._logprobs(tokens), "finish_reason": reason}

    def _described(self, head: AnswerHead) -> dict[str, Any]:
        return {"id": head.id, "object": "text_completion", "created": head.created, "model": head.model}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self.fields.sampling.logprobs is None:
            return None
        return {
            "tokens": [shown(token.text) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{shown(text): logprob for text, logprob in token.top} for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }


def parse_completion(body: bytes, limits: Limits) -> CompletionCall:
    """Raises InvalidRequest naming the field, or TooLarge."""
    document = given(parse_json_object(body, limits), _KNOWN)
    refuse(document, ("echo", "suffix"))
    logprobs = whole_number(document, "logprobs", 0, MOST_LOGPROBS)
    fields = text_fields({"max_tokens": USUAL_TOKENS} | document, "max_tokens", logprobs)
    best_of = whole_number(document, "best_of", 1, None)
    if best_of not in (None, fields.choices):
        raise InvalidRequest("must be n: all texts that are made are answered", "best_of")
    value = document.get("prompt")
    prompts = _prompts(value)
    if len(prompts) * fields.choices > MOST_CHOICES:
        raise InvalidRequest(f"asks for more than {MOST_CHOICES} texts, with n for each prompt", "prompt")
    return CompletionCall(fields, prompts, is_list=isinstance(value, list) and not _are_ids(value))


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """One text or the ids of its tokens, or a list of either."""
    if not isinstance(value, list) or _are_ids(value):
        return (_prompt(value, "prompt"),)
    if not value:
        raise InvalidRequest("must not be empty", "prompt")
    return tuple(_prompt(one, f"prompt[{number}]") for number, one in enumerate(value))


def _prompt(value: Any, field: str) -> Prompt:
    if not isinstance(value, str) and not (isinstance(value, list) and _are_ids(value)):
        raise InvalidRequest("must be a text or token ids, or a list of either", field)
    if not value:
        raise InvalidRequest("must not be empty", field)
    return value


def _are_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int for item in value)
