"""The fields that OpenAI's calls for generated text have in common, `/v1/chat/completions` and `/v1/completions`.

Fields of this server are `slo_first_token_ms`, `slo_token_ms`, `quality_floor`, `level`, `timeout` and `priority`,
where the clients put their ``extra_body``. Whatever cannot be done here is refused and not ignored, unless the answer
would be the same without it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from service.engine.generation import GenerationOptions
from service.engine.sampling import Sampling
from service.errors import InvalidRequest
from service.protocol.parameters import OPTIONS, check_parameter_types, request_options

OWN = ("slo_first_token_ms", "slo_token_ms")
MOST_STOPS = 16
LONGEST_STOP = 1024
MOST_LOGPROBS = 20
MOST_BIASED = 1024
MOST_CHOICES = 64
"""Of a request, of all its prompts: each is a generation of its own."""
_SHARED = frozenset(
    [
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "n",
        "logprobs",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
    ]
)
_WITHOUT_EFFECT = frozenset(
    ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"]
)


@dataclass(frozen=True, slots=True)
class TextFields:
    """`limit_field` is the name by which the client gave `max_tokens`, which is None where it gave none. `choices` is
    how many texts are to be made of a prompt.
    """

    model: str
    sampling: Sampling
    max_tokens: int | None
    limit_field: str
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    options: GenerationOptions
    choices: int = 1


def given(document: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields that are not null. Raises InvalidRequest for one that is not known."""
    for name in document:
        if name not in known and name not in _SHARED and name not in _WITHOUT_EFFECT and name not in (*OPTIONS, *OWN):
            raise InvalidRequest("is not known here", name[:64])
    return {name: value for name, value in document.items() if value is not None}


def text_fields(document: Mapping[str, Any], limit_field: str, logprobs: int | None) -> TextFields:
    """What is common, of the fields that are not null; ``logprobs`` is as in `Sampling`. Raises InvalidRequest naming
    the field.
    """
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("must be the name of a model", "model")
    stream = boolean(document, "stream")
    return TextFields(
        model=model,
        sampling=Sampling(
            temperature=number(document, "temperature", 0, 2, 1.0),
            top_p=number(document, "top_p", 0, 1, 1.0),
            seed=_seed(document.get("seed")),
            frequency_penalty=number(document, "frequency_penalty", -2, 2, 0.0),
            presence_penalty=number(document, "presence_penalty", -2, 2, 0.0),
            logprobs=logprobs,
            bias=_bias(document.get("logit_bias", {})),
        ),
        max_tokens=whole_number(document, limit_field, 1, None),
        limit_field=limit_field,
        stops=_stops(document.get("stop", [])),
        stream=stream,
        include_usage=_include_usage(document.get("stream_options"), stream),
        options=_options(document),
        choices=whole_number(document, "n", 1, MOST_CHOICES) or 1,
    )


def number(document: Mapping[str, Any], name: str, low: float, high: float, usual: float) -> float:
    """A field's number within bounds. Raises InvalidRequest."""
    value = document.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequest(f"must be a number between {low:g} and {high:g}", name)
    return float(value)


def whole_number(document: Mapping[str, Any], name: str, low: int, high: int | None) -> int | None:
    """A field's whole number, None where it is not there. Raises InvalidRequest."""
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int or value < low or (high is not None and value > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise InvalidRequest(f"must be a whole number, {bounds}", name)
    return value


def boolean(document: Mapping[str, Any], name: str) -> bool:
    """A field's truth, false where it is not there. Raises InvalidRequest."""
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest("must be true or false", name)
    return value


def refuse(document: Mapping[str, Any], names: Collection[str]) -> None:
    """Raises InvalidRequest for a field that is there, not empty, and asks for what cannot be done."""
    for name in names:
        if document.get(name):
            raise InvalidRequest("is not supported", name)


def _options(document: Mapping[str, Any]) -> GenerationOptions:
    common = {name: document[name] for name in OPTIONS if name in document}
    return GenerationOptions(
        request_options(check_parameter_types(common, ""), prefix=""),
        document.get("slo_first_token_ms"),
        document.get("slo_token_ms"),
    )


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not -(2**63) <= value < 2**64:
        raise InvalidRequest("must be a whole number of at most 64 bits", "seed")
    # A generator of random numbers takes none below 0.
    return value % 2**64


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    """Ids of tokens, which JSON can only have as texts, and what is added to their logits."""
    if not isinstance(value, dict) or len(value) > MOST_BIASED:
        raise InvalidRequest(f"must be an object with at most {MOST_BIASED} token ids", "logit_bias")
    for token, bias in value.items():
        field = f"logit_bias.{token[:64]}"
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise InvalidRequest("must be the id of a token", field)
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise InvalidRequest("must be a number between -100 and 100", field)
    return tuple((int(token), float(bias)) for token, bias in value.items())


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise InvalidRequest(f"must be a text or a list of at most {MOST_STOPS} texts", "stop")
    for index, stop in enumerate(stops):
        if not isinstance(stop, str) or not 1 <= len(stop) <= LONGEST_STOP:
            field = "stop" if isinstance(value, str) else f"stop[{index}]"
            raise InvalidRequest(f"must be a text of 1 to {LONGEST_STOP} characters", field)
    return tuple(stops)


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        raise InvalidRequest("is only for a stream", "stream_options")
    if not isinstance(value, dict):
        raise InvalidRequest("must be an object", "stream_options")
    wanted = value.get("include_usage", False)
    if not isinstance(wanted, bool):
        raise InvalidRequest("must be true or false", "stream_options.include_usage")
    return wanted
