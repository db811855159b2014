"""A model of speech on a running server, by the public Triton client and OpenAI's."""

import io
import json
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from models.model import GateContext
from models.zoo.speech import SpeechRecognizer, Wanted
from tests.live import LiveServer, serve
from tests.models.zoo.random_whisper import write_random_whisper

RATE = 16_000


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> SpeechRecognizer:
    return SpeechRecognizer("speech", write_random_whisper(tmp_path_factory.mktemp("whisper"), seed=4))


@pytest.fixture(scope="module")
def live(speech, tmp_path_factory) -> Iterator[LiveServer]:
    with serve([speech], tmp_path_factory.mktemp("home"), slo_speech_ms=10_000) as server:
        yield server


def noise(seconds):
    return (0.1 * np.random.default_rng(1).standard_normal(int(seconds * RATE))).astype(np.float32)


def tensor(name, values, datatype):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def test_audio_goes_in_and_text_comes_out(live, speech):
    client = triton.InferenceServerClient(live.address)
    inputs = [tensor("audio", noise(0.8), "FP32"), tensor("language", np.array([b"de"], object), "BYTES")]
    result = client.infer("speech", inputs)
    wanted = speech.transcribe(noise(0.8), Wanted("de"), GateContext(0.0))
    assert str(result.as_numpy("text")[0], "utf-8") == wanted.text
    assert json.loads(result.as_numpy("details")[0])["language"] == "de"
    assert result.get_response()["parameters"]["level"] == 0
    optional = {each["name"]: each.get("optional", False) for each in client.get_model_config("speech")["input"]}
    assert optional == {"audio": False, "language": True, "prompt": True, "timestamps": True}
    client.close()


def test_what_is_no_audio_is_refused(live):
    client = triton.InferenceServerClient(live.address)
    with pytest.raises(InferenceServerException, match="language: speech knows en, de, fr"):
        client.infer("speech", [
            tensor("audio", noise(0.1), "FP32"), tensor("language", np.array([b"xx"], object), "BYTES")
        ])  # fmt: skip
    with pytest.raises(InferenceServerException, match="lacks the input 'audio'"):
        client.infer("speech", [tensor("prompt", np.array([b"x"], object), "BYTES")])
    client.close()


def test_a_raw_request_is_audio(live, speech):
    headers = {"Inference-Header-Content-Length": "0"}
    answer = live.http.post("/v2/models/speech/infer", content=noise(0.3).tobytes(), headers=headers)
    length = int(answer.headers["Inference-Header-Content-Length"])
    result = triton.InferenceServerClient.parse_response_body(answer.content, header_length=length)
    assert str(result.as_numpy("text")[0], "utf-8") == speech.transcribe(noise(0.3), Wanted(), GateContext(0.0)).text


def test_openais_client_uploads_a_file(live, speech):
    file = io.BytesIO()
    soundfile.write(file, noise(0.8), RATE, format="WAV", subtype="FLOAT")
    with openai.OpenAI(base_url=f"http://{live.address}/v1", api_key="none", max_retries=0) as client:
        answer = client.audio.transcriptions.create(
            model="speech", file=("speech.wav", file.getvalue()), language="de", extra_body={"level": 0}
        )
        assert answer.text == speech.transcribe(noise(0.8), Wanted("de"), GateContext(0.0)).text
        assert answer.model_extra["sluice"]["slo_met"] is True
        long = io.BytesIO()
        soundfile.write(long, noise(3.3), RATE, format="FLAC")
        verbose = client.audio.transcriptions.create(
            model="speech", file=("a.flac", long.getvalue()), language="en", response_format="verbose_json"
        )
        assert verbose.segments[-1].end == pytest.approx(3.3, abs=0.01)
        with pytest.raises(openai.BadRequestError, match="language"):
            client.audio.transcriptions.create(model="speech", file=("a.wav", file.getvalue()), language="xx")


def test_an_inference_is_counted_once_however_long_the_audio(live):
    before = live.http.get("/v2/models/speech/stats").json()["model_stats"][0]["inference_count"]
    live.http.post(
        "/v2/models/speech/infer",
        content=noise(0.3).tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert live.http.get("/v2/models/speech/stats").json()["model_stats"][0]["inference_count"] == before + 1


def test_its_slo_may_be_for_each_second_of_audio(live):
    assert live.http.get("/v2/models/speech/slo").json()["audio_second_ms"] == 100
    hardly = {"latency_ms": 1e-3, "audio_second_ms": 0, "shed": False}
    assert live.http.patch("/v2/models/speech/slo", json=hardly).status_code == 200
    raw = {"content": noise(0.3).tobytes(), "headers": {"Inference-Header-Content-Length": "0"}}
    try:
        assert _met(live.http.post("/v2/models/speech/infer", **raw)) is False
        changed = live.http.patch("/v2/models/speech/slo", json={"audio_second_ms": 60_000}).json()
        assert (changed["latency_ms"], changed["audio_second_ms"]) == (1e-3, 60_000)
        assert _met(live.http.post("/v2/models/speech/infer", **raw)) is True
        assert live.http.get("/v2/models/speech/gate").json()["slo_attainable"] is True
        refused = live.http.patch("/v2/models/speech/slo", json={"audio_second_ms": -1})
        assert (refused.status_code, "audio_second_ms" in refused.json()["error"]) == (400, True)
    finally:
        live.http.patch("/v2/models/speech/slo", json={"latency_ms": 10_000, "audio_second_ms": 100, "shed": True})


def _met(answer):
    length = int(answer.headers["Inference-Header-Content-Length"])
    return json.loads(answer.content[:length])["parameters"]["slo_met"]
