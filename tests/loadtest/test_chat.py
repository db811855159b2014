import json

import pytest

from loadtest.chat import Chats, moby_dick
from loadtest.script import Script
from loadtest.summary import Sample, figures
from loadtest.workload import Reply
from service.control.generation_slo import GenerationSLO
from tests.live import serve
from tests.service.engine.fake_generator import FakeGenerator

SLO = GenerationSLO(1000, 50)


def reply(*events, status=200):
    return Reply(status, {}, b"".join(b"data: " + event + b"\n\n" for event in events))


def told(**sluice):
    return json.dumps(
        {"choices": [], "sluice": {"level": 0.25, "first_token_ms": 120, "token_ms": 30} | sluice}
    ).encode()


def test_a_stream_to_its_end_is_judged_by_what_it_says_last():
    judged = Chats(["Hi"]).judge(0, reply(b"{}", told(), b"[DONE]"))
    assert (judged.outcome, judged.level, judged.first_token, judged.token) == ("ok", 0.25, 0.12, 0.03)
    assert Chats(["Hi"]).judge(0, reply(told(token_ms=None), b"[DONE]")).token is None


@pytest.mark.parametrize(
    "broken",
    [
        reply(),
        reply(told()),
        reply(b'{"error": {}}'),
        reply(b"{}", b"[DONE]"),
        reply(b"x", b"[DONE]"),
        Reply(200, {}, b""),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(broken):
    assert Chats(["Hi"]).judge(0, broken).outcome == "error"


def test_an_overloaded_server():
    assert Chats(["Hi"]).judge(0, Reply(503, {"retry-after": "1"}, b"")).outcome == "refused"


def test_both_times_count_from_when_it_was_due():
    def sample(first, token, late=0.0):
        return Sample(1.0, 1.0 + late, 9.0, "ok", 0.0, None, first, token)

    assert sample(0.9, 0.05).met(SLO)
    assert sample(0.9, None).met(SLO)
    assert not sample(0.9, 0.051).met(SLO)
    assert not sample(0.9, 0.05, late=0.2).met(SLO)
    assert not Sample(1.0, 1.0, 1.1, "refused").met(SLO)
    shown = figures([sample(0.9, 0.05, late=0.2), sample(0.2, None)], Script(SLO).at)
    assert shown["attainment"] == 0.5
    assert shown["first_token_ms"]["99"] == pytest.approx(1100)
    assert shown["token_ms"]["99"] == pytest.approx(50)


def test_the_questions_are_about_sentences():
    chats = moby_dick()
    assert len(chats.posts) == 200
    assert len({post.body for post in chats.posts}) > 190


def test_a_load_on_a_server(tmp_path):
    import subprocess
    import sys

    with serve([FakeGenerator(name="smollm2", context_length=2000)], tmp_path) as live:
        command = ["-m", "loadtest", "--workload", "loadtest.chat:moby_dick", "--rate", "20", "--seconds", "1"]
        changes = ["--event", "0.5:token_ms=90", "--json", "--url", f"http://{live.address}"]
        done = subprocess.run([sys.executable, *command, *changes], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        slo = live.http.get("/v2/models/smollm2/slo").json()
    result = json.loads(done.stdout)
    assert (result["slo"]["token_ms"], slo["token_ms"]) == (100, 90)
    assert result["outcomes"] == {"ok": result["arrivals"]}
    assert 0 < result["first_token_ms"]["50"] <= result["latency_ms"]["50"]
    assert 0 < result["token_ms"]["99"] < 100
