"""The route of ``/v1/audio/transcriptions``."""

import asyncio
import io

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from models.model import Transcriber
from models.zoo.audio import COMMAND, UnreadableAudio, read_audio
from service.engine.long_texts import beside_the_loop_if
from service.engine.request import Request as EngineRequest
from service.errors import InvalidRequest, Unsupported
from service.protocol.body import compress_for, receive_body
from service.protocol.collaborators import InferenceEngine
from service.protocol.disconnect import caller_of, unless_disconnected
from service.protocol.intake import Intake
from service.protocol.limits import Limits
from service.protocol.multipart import parse_form
from service.protocol.openai_errors import in_their_shape
from service.protocol.openai_transcriptions import FORMATS, parse_transcription, render_transcription

PROTOCOL = "openai"


def add_transcriptions(router: APIRouter, engine: InferenceEngine, limits: Limits) -> None:
    """Adds the route to those of ``/v1``."""

    @router.post("/audio/transcriptions", summary="The text of speech", openapi_extra={"requestBody": _BODY})
    @in_their_shape
    async def transcriptions(request: Request) -> Response:
        with Intake(engine, PROTOCOL) as intake:
            body = await receive_body(request.headers, request.receive, limits.body_bytes)
            intake.received()
            content_type = request.headers.get("content-type", "")
            # A body may be made so that taking it apart takes long.
            parsed = parse_transcription(await beside_the_loop_if(len(body), parse_form, content_type, body))
            intake.model = parsed.model
            model = _transcriber(engine, parsed.model)
            # Reading a file is arithmetic too: the event loop goes on meanwhile.
            audio = await asyncio.to_thread(_samples, parsed.file, model)
        submitted = EngineRequest("", parsed.model, parsed.inputs(audio), intake.arrival, parsed.options, PROTOCOL)
        try:
            finished = await unless_disconnected(engine.submit(submitted), request.receive, caller_of(request.scope))
        except InvalidRequest as error:
            raise InvalidRequest(error.reason, "file" if error.field == "audio" else error.field) from None
        answer = render_transcription(parsed, finished)
        content, encoding = await compress_for(request.headers.get("accept-encoding", ""), bytes(answer.body))
        headers = {} if encoding is None else {"Content-Encoding": encoding}
        return Response(content, headers=headers, media_type=answer.media_type)


def _transcriber(engine: InferenceEngine, name: str) -> Transcriber:
    model = engine.model(name)
    if not isinstance(model, Transcriber):
        raise InvalidRequest(f"{name!r} does not transcribe speech", "model")
    return model


def _samples(content: bytes, model: Transcriber) -> NDArray[np.float32]:
    try:
        return read_audio(io.BytesIO(content), model.sample_rate, model.longest_seconds)
    except UnreadableAudio as error:
        raise InvalidRequest(str(error), "file") from None
    except ModuleNotFoundError as missing:
        raise Unsupported(f"audio files cannot be read here ({missing}); it takes: {COMMAND}") from None


_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "model"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "wav, flac, mp3 or ogg"},
                    "model": {"type": "string", "example": "whisper-tiny.en"},
                    "language": {"type": "string", "example": "en"},
                    "prompt": {"type": "string", "description": "Text that came before: names, spelling"},
                    "response_format": {"enum": list(FORMATS), "default": "json"},
                    "temperature": {"type": "number", "enum": [0]},
                    "timestamp_granularities[]": {"type": "array", "items": {"enum": ["segment"]}},
                    "slo_ms": {"type": "number"},
                    "quality_floor": {"type": "number"},
                    "level": {"type": "number"},
                },
            }
        }
    },
}
