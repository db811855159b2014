"""Load on a language model: chats by `/v1/chat/completions`, streamed, judged by both times of their SLO.

python -m loadtest --workload loadtest.chat:moby_dick --rate 2 …
locust -f loadtest/locustfile.py --workload loadtest.chat:moby_dick …
"""

import os
from collections.abc import Sequence
from typing import Any

import orjson

from loadtest.workload import Judged, Parameters, Post, Reply, refusal
from models.zoo import text_data

MODEL = "smollm2"
TOKENS = 48
QUESTIONS = 200


class Chats:
    """A `Workload`: a question each, answered with at most `tokens` tokens. `parameters` go into each request, such as
    `{"level": 0}`.

    What the server says of its two times is what is judged, counted from when the request was due.
    """

    def __init__(
        self, questions: Sequence[str], model: str = MODEL, tokens: int = TOKENS, parameters: Parameters | None = None
    ) -> None:
        self.model = model
        self.posts = [_post(model, question, tokens, parameters or {}) for question in questions]

    def judge(self, number: int, reply: Reply) -> Judged:
        if reply.status != 200:
            return Judged(refusal(reply))
        try:
            told = _last(reply.body)["sluice"]
            first, token = float(told["first_token_ms"]) / 1e3, told["token_ms"]
            return Judged("ok", float(told["level"]), None, first, None if token is None else float(token) / 1e3)
        except (KeyError, TypeError, ValueError, IndexError):
            return Judged("error")


def moby_dick() -> Chats:
    """Questions about sentences of Moby Dick, to the model that `SLUICE_CHAT_MODEL` names."""
    questions = [f"What does this sentence tell us? {sentence}" for sentence in text_data.sample()[:QUESTIONS]]
    return Chats(questions, os.environ.get("SLUICE_CHAT_MODEL", MODEL))


def _post(model: str, question: str, tokens: int, parameters: Parameters) -> Post:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_completion_tokens": tokens,
        "temperature": 0,
        "stream": True,
        **parameters,
    }
    return Post("/v1/chat/completions", {"Content-Type": "application/json"}, orjson.dumps(body))


def _last(body: bytes) -> dict[str, Any]:
    """The last part of a stream that came to its end. Raises `IndexError` or `ValueError` where it did not."""
    *_, last, done, rest = body.split(b"\n\n")
    if (done, rest) != (b"data: [DONE]", b""):
        raise ValueError("the stream has no end")
    part: dict[str, Any] = orjson.loads(last.removeprefix(b"data: "))
    return part
