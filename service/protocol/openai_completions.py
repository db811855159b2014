"""``POST /v1/completions`` as OpenAI's clients use it: a text in, how it goes on out, whole or streamed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.model import Generator
from service.engine.generation import Piece, Token
from service.errors import InvalidRequest
from service.protocol.limits import Limits
from service.protocol.text_answer import AnswerHead, shown, sluice_of, usage_of
from service.protocol.text_fields import MOST_LOGPROBS, TextFields, given, refuse, text_fields, whole_number
from service.protocol.v2_request import parse_json_object

USUAL_TOKENS = 16
"""What the API has where a request does not say."""
_KNOWN = frozenset(("prompt", "best_of", "echo", "suffix"))


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A parsed request, and how it is answered; see `service.protocol.text_answer.TextCall`."""

    fields: TextFields
    text: str
    prompt_field: str = "prompt"

    def prompt(self, model: Generator) -> str:
        return self.text

    def whole(self, head: AnswerHead, pieces: Sequence[Piece]) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        text = "".join(piece.text for piece in pieces)
        answer = self._answer(head, text, tokens, pieces[-1].finish_reason)
        return answer | {"usage": usage_of(pieces[-1]), "sluice": sluice_of(pieces[-1])}

    def opening(self, head: AnswerHead) -> dict[str, Any] | None:
        return None

    def chunk(self, head: AnswerHead, piece: Piece) -> dict[str, Any]:
        return self._answer(head, piece.text, piece.tokens, piece.finish_reason)

    def closing(self, head: AnswerHead) -> dict[str, Any]:
        return self._described(head) | {"choices": []}

    def _answer(self, head: AnswerHead, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": self._logprobs(tokens), "finish_reason": reason}
        return self._described(head) | {"choices": [choice]}

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
    if document.get("best_of", 1) != 1:
        raise InvalidRequest("must be 1: a request makes one text here", "best_of")
    logprobs = whole_number(document, "logprobs", 0, MOST_LOGPROBS)
    fields = text_fields({"max_tokens": USUAL_TOKENS} | document, "max_tokens", logprobs)
    return CompletionCall(fields, _prompt(document.get("prompt")))


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise InvalidRequest("must be one text; token ids are not taken, since each model has its own", "prompt")
    if not value:
        raise InvalidRequest("must not be empty", "prompt")
    return value
