"""``POST /v1/audio/transcriptions`` as OpenAI's clients use it: a form with an audio file in, its text out.

The parameters of this server (`slo_ms`, `quality_floor`, `level`, `timeout`, `priority`) are fields of the form, where
the clients put their ``extra_body``; what the gates did comes back as ``sluice``, beside ``usage``, in the two formats
that are JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from models.zoo.whisper_languages import NAMES
from service.engine.request import Finished, RequestOptions
from service.errors import InvalidRequest
from service.protocol.multipart import Form
from service.protocol.parameters import OPTIONS, request_options
from service.protocol.routing import json_response
from service.protocol.subtitles import as_srt, as_vtt
from service.protocol.v2_infer import parameters_of

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_TIMED = frozenset({"srt", "verbose_json", "vtt"})
_GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")
_KNOWN = frozenset(
    {"model", "language", "prompt", "response_format", "temperature", "stream", *_GRANULARITIES, *OPTIONS}
)
_WHOLE = frozenset({"timeout", "priority"})


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """`file` is the upload as it came."""

    model: str
    file: bytes
    language: str | None
    prompt: str
    response_format: str
    options: RequestOptions

    def inputs(self, audio: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """What the model gets."""
        inputs: dict[str, NDArray[Any]] = {"audio": audio}
        if self.language is not None:
            inputs["language"] = np.array([self.language.encode()], object)
        if self.prompt:
            inputs["prompt"] = np.array([self.prompt.encode()], object)
        if self.response_format in _TIMED:
            inputs["timestamps"] = np.array([True])
        return inputs


def parse_transcription(form: Form) -> TranscriptionRequest:
    """Raises InvalidRequest naming the field."""
    for name in form.files:
        if name != "file":
            raise InvalidRequest("is no file that is known here; the audio is `file`", name[:64])
    given: dict[str, str] = {}
    granularities = []
    for name, value in form.fields:
        if name == "file":
            raise InvalidRequest("must be an upload, with a file name", "file")
        if name not in _KNOWN:
            raise InvalidRequest(f"is not known here; known are {', '.join(sorted(_KNOWN))}", name[:64])
        if name in _GRANULARITIES:
            granularities.append(value)
        elif name in given:
            raise InvalidRequest("is given twice", name)
        else:
            given[name] = value
    if not given.get("model"):
        raise InvalidRequest("must be the name of a model", "model")
    if "file" not in form.files:
        raise InvalidRequest("is missing: the audio to transcribe", "file")
    response_format = given.get("response_format", "json")
    if response_format not in FORMATS:
        raise InvalidRequest(f"must be one of {', '.join(FORMATS)}", "response_format")
    _check_granularities(granularities, response_format)
    if _number(given, "temperature", 0.0) != 0:
        raise InvalidRequest("must be 0: the likeliest word is taken, always", "temperature")
    if given.get("stream", "false").lower() != "false":
        raise InvalidRequest("must be false: the text comes as a whole", "stream")
    own = {name: _number(given, name, 0.0) for name in OPTIONS if name in given}
    return TranscriptionRequest(
        model=given["model"],
        file=form.files["file"],
        language=given.get("language") or None,
        prompt=given.get("prompt", ""),
        response_format=response_format,
        options=request_options({name: int(value) if name in _WHOLE else value for name, value in own.items()}, ""),
    )


def render_transcription(request: TranscriptionRequest, finished: Finished) -> Response:
    """The answer in the format that was asked for."""
    text = str(finished.outputs["text"][0], "utf-8")
    details: dict[str, Any] = json.loads(finished.outputs["details"][0])
    segments: Sequence[Mapping[str, Any]] = details["segments"]
    match request.response_format:
        case "text":
            return _plain(f"{text}\n")
        case "srt":
            return _plain(as_srt(segments))
        case "vtt":
            return _plain(as_vtt(segments), "text/vtt")
    seconds = details["duration"]
    answer: dict[str, Any] = {"text": text}
    if request.response_format == "verbose_json":
        answer = {
            "task": details["task"],
            "language": NAMES.get(details["language"], details["language"]),
            "duration": seconds,
            "text": text,
            "segments": [_segment(number, segment) for number, segment in enumerate(segments)],
        }
    usage = {"type": "duration", "seconds": max(1, round(seconds))}
    return json_response(answer | {"usage": usage, "sluice": parameters_of(finished)})


def _segment(number: int, segment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "seek": segment["seek"],
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["text"],
        "tokens": segment["tokens"],
        "temperature": 0.0,
        "avg_logprob": segment["mean_log_probability"],
        "compression_ratio": segment["compression_ratio"],
        "no_speech_prob": segment["no_speech"],
    }


def _check_granularities(granularities: Sequence[str], response_format: str) -> None:
    field = "timestamp_granularities"
    for value in granularities:
        if value != "segment":
            raise InvalidRequest("must be segment: words have no times here", field)
    if granularities and response_format != "verbose_json":
        raise InvalidRequest("needs response_format verbose_json", field)


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        value = float(text)
        if name in _WHOLE and value != int(value):
            raise ValueError
    except (ValueError, OverflowError):
        what = "a whole number" if name in _WHOLE else "a number"
        raise InvalidRequest(f"must be {what}, got {text[:20]!r}", name) from None
    return value


def _plain(text: str, kind: str = "text/plain") -> Response:
    return Response(text, media_type=f"{kind}; charset=utf-8")
