"""``POST /v1/chat/completions`` as OpenAI's clients use it: messages in, the next message out, whole or streamed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.model import Generator
from service.engine.generation import Piece, Token
from service.errors import InvalidRequest
from service.protocol.limits import Limits
from service.protocol.text_answer import AnswerHead, Prompt, ending, shown
from service.protocol.text_fields import MOST_LOGPROBS, TextFields, boolean, given, refuse, text_fields, whole_number
from service.protocol.v2_request import parse_json_object

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""A developer's message is a system's by its older name, which is the one that models were trained with."""
_UNSUPPORTED = ("tools", "functions", "function_call", "audio", "prediction", "web_search_options")
_KNOWN = frozenset(
    (
        *("messages", "max_completion_tokens", "top_logprobs", "response_format", "modalities", "tool_choice"),
        *("reasoning_effort", "verbosity"),
        *_UNSUPPORTED,
    )
)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A parsed request, and how it is answered; see `service.protocol.text_answer.TextCall`."""

    fields: TextFields
    messages: tuple[dict[str, str], ...]

    def prompt_field(self, number: int) -> str:
        return "messages"

    def prompts(self, model: Generator) -> Sequence[Prompt]:
        return [model.chat_prompt(self.messages)]

    def whole(self, head: AnswerHead, choices: Sequence[Sequence[Piece]]) -> dict[str, Any]:
        described = {"id": head.id, "object": "chat.completion", "created": head.created, "model": head.model}
        made = [self._choice(number, pieces) for number, pieces in enumerate(choices)]
        return described | {"choices": made} | ending([pieces[-1] for pieces in choices], self.fields.choices)

    def opening(self, head: AnswerHead, choice: int) -> dict[str, Any] | None:
        return self._chunk(head, choice, {"role": "assistant", "content": ""}, None, None)

    def chunk(self, head: AnswerHead, choice: int, piece: Piece) -> dict[str, Any]:
        delta = {"content": piece.text} if piece.text or piece.tokens else {}
        return self._chunk(head, choice, delta, self._logprobs(piece.tokens), piece.finish_reason)

    def closing(self, head: AnswerHead) -> dict[str, Any]:
        return self._described(head) | {"choices": []}

    def _choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        content = "".join(piece.text for piece in pieces)
        return {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": self._logprobs([token for piece in pieces for token in piece.tokens]),
            "finish_reason": pieces[-1].finish_reason,
        }

    def _chunk(
        self, head: AnswerHead, index: int, delta: dict[str, str], logprobs: Any, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._described(head) | {"choices": [choice]}

    def _described(self, head: AnswerHead) -> dict[str, Any]:
        return {"id": head.id, "object": "chat.completion.chunk", "created": head.created, "model": head.model}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self.fields.sampling.logprobs is None:
            return None
        return {"content": [_token(token) for token in tokens], "refusal": None}


def parse_chat(body: bytes, limits: Limits) -> ChatCall:
    """Raises InvalidRequest naming the field, or TooLarge."""
    document = given(parse_json_object(body, limits), _KNOWN)
    refuse(document, _UNSUPPORTED)
    if document.get("tool_choice", "none") not in ("none", "auto"):
        raise InvalidRequest("is not supported", "tool_choice")
    if document.get("response_format", {"type": "text"}) != {"type": "text"}:
        raise InvalidRequest("only text is supported", "response_format")
    if document.get("modalities", ["text"]) != ["text"]:
        raise InvalidRequest("only text is supported", "modalities")
    if "max_tokens" in document and "max_completion_tokens" in document:
        raise InvalidRequest("is another name of max_completion_tokens; give one of them", "max_tokens")
    limit_field = "max_tokens" if "max_tokens" in document else "max_completion_tokens"
    top = whole_number(document, "top_logprobs", 0, MOST_LOGPROBS)
    if not boolean(document, "logprobs"):
        if top:
            raise InvalidRequest("needs logprobs to be true", "top_logprobs")
        top = None
    elif top is None:
        top = 0
    return ChatCall(text_fields(document, limit_field, top), _messages(document.get("messages")))


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("must be an array of at least one message", "messages")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(value))


def _message(value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidRequest("must be an object", field)
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"must be one of {', '.join(ROLES)}", f"{field}.role")
    for name, content in value.items():
        # Clients send an answer back as they got it, with all that it did not have.
        if name not in ("role", "content", "name") and content:
            raise InvalidRequest("is not supported", f"{field}.{name[:64]}")
    return {"role": ROLES[role], "content": _content(value.get("content"), f"{field}.content")}


def _content(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise InvalidRequest("must be a text, or an array of parts of type text", field)
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest('must be {"type": "text", "text": …}: only text is supported', f"{field}[{index}]")
    return "".join(part["text"] for part in value)


def _token(token: Token) -> dict[str, Any]:
    top = [_scored(text, logprob) for text, logprob in token.top]
    return _scored(token.text, token.logprob) | {"top_logprobs": top}


def _scored(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(text), "logprob": logprob, "bytes": list(text)}
