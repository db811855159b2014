"""Speech by OpenAI's own client."""

import asyncio
import io
import json
import threading

import numpy as np
import openai
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from models.model import GateContext, TensorSpec
from service.engine.request import Finished
from service.errors import InvalidRequest, Refused
from service.protocol import openai_audio
from service.protocol.multipart import parse_form
from tests.service.protocol.conftest import LIMITS
from tests.service.protocol.fakes import FakeEngine, ToyModel
from tests.service.protocol.openai_calls import openai_client, openai_http

RATE = 16_000


class ToyTranscriber(ToyModel):
    name = "ears"
    inputs = (TensorSpec("audio", "FP32", (-1,)),)
    outputs = (TensorSpec("text", "BYTES", (1,)), TensorSpec("details", "BYTES", (1,)))
    sample_rate, longest_seconds, languages = RATE, 2.0, ("en",)

    def example(self):
        return {"audio": np.zeros(RATE, np.float32)}


SEGMENT = {
    "seek": 0,
    "start": 0.0,
    "end": 0.5,
    "text": " Hello.",
    "tokens": [7, 8],
    "mean_log_probability": -0.25,
    "compression_ratio": 0.5,
    "no_speech": 0.01,
}


class SpeechEngine(FakeEngine):
    async def submit(self, request):
        await self.taken(request)
        seconds = len(request.inputs["audio"]) / RATE
        details = {"language": "en", "task": "transcribe", "duration": seconds, "segments": [SEGMENT]}
        outputs = {"text": np.array([b"Hello."], object), "details": np.array([json.dumps(details).encode()], object)}
        context = GateContext(0.25, macs=100, macs_skipped=30)
        return Finished("", outputs, 0.25, 0.99, context, 0.001, 0.002, 0.004, True)


@pytest.fixture
def engine():
    return SpeechEngine(toy=ToyTranscriber())


@pytest.fixture
def http(engine):
    return openai_http(engine)


@pytest.fixture
def client(http):
    return openai_client(http)


def recording(seconds=0.02, rate=RATE, form="WAV"):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(int(rate * seconds))), rate, format=form)
    return file.getvalue()


async def transcribe(client, **options):
    given = {"file": ("speech.wav", recording()), "model": "ears"}
    return await client.audio.transcriptions.create(**given | options)


async def test_it_is_among_the_models(client):
    assert [model.id for model in (await client.models.list()).data] == ["ears"]


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
async def test_a_file_becomes_a_text(client, engine, form):
    answer = await transcribe(client, file=(f"speech.{form.lower()}", recording(0.1, 8000, form)))
    assert answer.text == "Hello."
    (request,) = engine.submitted
    audio = request.inputs["audio"]
    assert (audio.dtype, set(request.inputs), request.protocol) == (np.float32, {"audio"}, "openai")
    assert abs(len(audio) - RATE * 0.1) < 2400


async def test_our_parameters_go_in_and_come_back(client, engine):
    extra = {"slo_ms": 20.5, "quality_floor": 0.9, "level": 0.5, "priority": 2, "timeout": 1_000_000}
    answer = await transcribe(client, extra_body=extra, language="en", prompt="Waldo", temperature=0)
    (request,) = engine.submitted
    options = request.options
    assert (options.slo_ms, options.quality_floor, options.level) == (20.5, 0.9, 0.5)
    assert (options.priority, options.timeout_us) == (2, 1_000_000)
    assert (request.inputs["language"][0], request.inputs["prompt"][0]) == (b"en", b"Waldo")
    assert answer.model_extra["sluice"]["macs_skipped"] == 0.3
    assert answer.usage.seconds == 1


async def test_verbose_json_has_segments(client, engine):
    answer = await transcribe(client, response_format="verbose_json", timestamp_granularities=["segment"])
    (segment,) = answer.segments
    assert (segment.start, segment.end, segment.text, segment.tokens) == (0, 0.5, " Hello.", [7, 8])
    assert (segment.avg_logprob, segment.no_speech_prob, segment.temperature) == (-0.25, 0.01, 0)
    assert (answer.language, answer.duration, answer.text) == ("english", 0.02, "Hello.")
    assert engine.submitted[0].inputs["timestamps"].tolist() == [True]


@pytest.mark.parametrize(
    ("response_format", "text"),
    [
        ("text", "Hello.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:00,500\nHello.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nHello.\n\n"),
    ],
)
async def test_other_formats_are_text(client, response_format, text):
    assert await transcribe(client, response_format=response_format) == text


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"file": None}, "file"),
        ({"file": "text"}, "file"),
        ({"response_format": "xml"}, "response_format"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"stream": "true"}, "stream"),
        ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities"),
        ({"slo_ms": "-1"}, "slo_ms"),
        ({"level": "nan"}, "level"),
        ({"level": "high"}, "level"),
        ({"priority": "1.5"}, "priority"),
        ({"timeout": "0"}, "timeout"),
        ({"timeout": "1e999"}, "timeout"),
        ({"nonsense": "1"}, "nonsense"),
    ],
)
async def test_a_bad_request_names_the_field_in_their_shape(http, engine, changes, param):
    fields = {name: value for name, value in ({"model": "ears"} | changes).items() if value is not None}
    files = {} if "file" in changes else {"file": ("a.wav", recording())}
    response = await http.post("/v1/audio/transcriptions", files=[
        *((name, (None, value)) for name, value in fields.items()), *files.items()
    ])  # fmt: skip
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert engine.submitted == []
    ((_, protocol, told),) = engine.rejected
    assert (protocol, told.outcome) == ("openai", "invalid")


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "cannot be read"), (b"x" * 999, "wav, flac, mp3"), (recording(2.5), "longer than 2 s")]
)
async def test_what_is_no_audio_is_about_the_file(client, engine, content, why):
    with pytest.raises(openai.BadRequestError, match=why) as refused:
        await transcribe(client, file=("speech.wav", content))
    assert refused.value.param == "file"
    assert engine.submitted == []


async def test_what_the_model_refuses_is_about_the_file_too(client, engine):
    engine.error = InvalidRequest("must be finite samples", "audio")
    with pytest.raises(openai.BadRequestError) as refused:
        await transcribe(client)
    assert refused.value.param == "file"


async def test_what_is_no_form(http):
    response = await http.post("/v1/audio/transcriptions", json={"model": "ears"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Content-Type")


@pytest.mark.parametrize(("seconds", "beside"), [(0.02, False), (1, True)])
async def test_a_large_form_is_read_beside_the_loop(client, monkeypatch, seconds, beside):
    threads = []

    def parse(*given):
        threads.append(threading.current_thread())
        return parse_form(*given)

    monkeypatch.setattr(openai_audio, "parse_form", parse)
    await transcribe(client, file=("speech.wav", recording(seconds)))
    assert (threads[0] is not threading.current_thread()) == beside


async def test_an_unknown_model_and_one_that_does_not_hear(client, engine):
    with pytest.raises(openai.NotFoundError):
        await transcribe(client, model="other")
    engine.toy = ToyModel()
    with pytest.raises(openai.BadRequestError, match="'toy' does not transcribe speech"):
        await transcribe(client, model="toy")


async def test_a_body_over_the_limit(client):
    with pytest.raises(openai.APIStatusError) as refused:
        await transcribe(client, file=("speech.wav", bytes(LIMITS.body_bytes)))
    assert refused.value.status_code == 413


async def test_an_overloaded_server_says_when_to_come_back(client, engine):
    engine.error = Refused("busy", 2.0)
    with pytest.raises(openai.InternalServerError) as refused:
        await transcribe(client)
    assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("refused", "2")


async def test_a_client_that_leaves_withdraws_its_request(client, engine):
    engine.gate = asyncio.Event()
    call = asyncio.create_task(transcribe(client))
    while not engine.submitted:
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.cancelled == 1
