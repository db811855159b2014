import io

import numpy as np
import orjson
import pytest

from loadtest.recordings import Recordings, wav
from loadtest.workload import Judged, Reply, judged_sample
from models.zoo.speech_data import Clip
from service.control.speech_slo import SpeechSLO
from service.protocol.multipart import parse_form
from service.protocol.openai_transcriptions import parse_transcription

CLIP = Clip("hello", (0.5 * np.sin(np.arange(4000))).astype(np.float32), "Press one please")


@pytest.fixture
def workload():
    return Recordings([CLIP], "ears")


def test_its_requests_are_uploads(workload):
    pytest.importorskip("python_multipart", reason="the extra `speech` is not installed")
    (post,) = workload.posts
    request = parse_transcription(parse_form(post.headers["Content-Type"], post.body))
    assert (request.model, request.language, request.file) == ("ears", "en", wav(CLIP.audio))


def test_its_files_are_audio():
    soundfile = pytest.importorskip("soundfile", reason="the extra `speech` is not installed")
    audio, rate = soundfile.read(io.BytesIO(wav(CLIP.audio)))
    assert rate == 16_000
    assert audio == pytest.approx(CLIP.audio, abs=1e-4)


def reply(text, status=200, **headers):
    return Reply(status, headers, orjson.dumps({"text": text, "sluice": {"level": 0.25}}))


def test_answers_are_judged_by_their_words(workload):
    assert workload.judge(0, reply("press 1, please.")).score == 1
    judged = workload.judge(0, reply("press two please"))
    assert (judged.outcome, judged.level, judged.score) == ("ok", 0.25, pytest.approx(2 / 3))
    assert judged.audio_seconds == 0.25
    assert workload.judge(0, reply("a b c d e f g")).score == 0


def test_what_is_no_answer_is_an_error(workload):
    assert workload.judge(0, Reply(200, {}, b"no JSON")).outcome == "error"
    assert workload.judge(0, reply(None)).outcome == "error"
    assert workload.judge(0, reply("", 500)).outcome == "error"
    assert workload.judge(0, Reply(503, {"retry-after": "1"}, b"")).outcome == "refused"
    assert workload.judge(0, Reply(503, {}, b"")).outcome == "expired"


def test_a_recording_is_judged_by_the_slo_of_its_length(workload):
    judged = workload.judge(0, reply("press one please"))
    slo = SpeechSLO(latency_ms=100, audio_second_ms=400)
    assert judged_sample(1.0, 1.0, 1.19, judged).met(slo)
    assert not judged_sample(1.0, 1.0, 1.21, judged).met(slo)
    assert not judged_sample(1.0, 1.0, 1.19, judged).met(slo.patched({"audio_second_ms": 0}))
    assert not judged_sample(1.0, 1.0, 1.0, Judged("refused")).met(slo)
