"""What OpenAPI says of the calls under ``/v1``, whose bodies are read raw and so not described by a signature."""

from typing import Any

from service.protocol.openai_chat import ROLES
from service.protocol.text_fields import MOST_BIASED, MOST_CHOICES, MOST_LOGPROBS, MOST_STOPS

_OWN: dict[str, Any] = {
    "quality_floor": {"type": "number", "minimum": 0, "maximum": 1, "description": "In place of the SLO's"},
    "level": {"type": "number", "minimum": 0, "maximum": 1, "description": "Pins the level, whatever the floor"},
    "timeout": {"type": "integer", "minimum": 1, "description": "Microseconds after which the request is dropped"},
    "priority": {"type": "integer", "minimum": 0, "description": "1 is the most urgent, 0 the default"},
}
_TEXT: dict[str, Any] = {
    "model": {"type": "string"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2, "default": 1, "description": "0 is the likeliest"},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
    "seed": {"type": "integer"},
    "n": {"type": "integer", "minimum": 1, "maximum": MOST_CHOICES, "default": 1, "description": "Texts of a prompt"},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
    "logit_bias": {
        "type": "object",
        "maxProperties": MOST_BIASED,
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "description": "By token ids, what is added to their logits",
    },
    "stop": {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MOST_STOPS}],
    },
    "stream": {"type": "boolean", "default": False, "description": "Server-sent events, the last `[DONE]`"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "slo_first_token_ms": {"type": "number", "exclusiveMinimum": 0, "description": "In place of the SLO's"},
    "slo_token_ms": {"type": "number", "exclusiveMinimum": 0, "description": "In place of the SLO's"},
    **_OWN,
}


def _body(required: list[str], properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


EMBEDDINGS_BODY = _body(
    ["model", "input"],
    {
        "model": {"type": "string"},
        "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "dimensions": {"type": "integer", "minimum": 1},
        "slo_ms": {"type": "number", "exclusiveMinimum": 0, "description": "In place of the SLO's"},
        **_OWN,
    },
    {"model": "minilm", "input": ["A text.", "Another one."]},
)
CHAT_BODY = _body(
    ["model", "messages"],
    {
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"enum": list(ROLES)}, "content": {"type": "string"}},
            },
        },
        "max_completion_tokens": {"type": "integer", "minimum": 1, "description": "All that the context holds"},
        "logprobs": {"type": "boolean", "default": False},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": MOST_LOGPROBS},
        **_TEXT,
    },
    {"model": "smollm2", "messages": [{"role": "user", "content": "What is a sluice?"}], "max_completion_tokens": 64},
)
COMPLETION_BODY = _body(
    ["model", "prompt"],
    {
        "prompt": {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "minItems": 1},
            ],
            "description": "A text or token ids, or several of them",
        },
        "max_tokens": {"type": "integer", "minimum": 1, "default": 16},
        "logprobs": {"type": "integer", "minimum": 0, "maximum": MOST_LOGPROBS},
        **_TEXT,
    },
    {"model": "smollm2", "prompt": "The sluice opened, and", "max_tokens": 32},
)
