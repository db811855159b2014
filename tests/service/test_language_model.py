"""A small random Llama on a real server, by OpenAI's client and over bare sockets."""

import socket
import time
from collections.abc import Iterator

import openai
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")

from typer.testing import CliRunner

from models.model import GateContext
from models.zoo.language_model import LanguageModel
from service.cli import command_line
from tests.live import LiveServer, serve
from tests.models.zoo.random_llama import write_random_llama

USER = [{"role": "user", "content": "Hi there"}]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> LanguageModel:
    return LanguageModel("llama", write_random_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def chatting(llama, tmp_path_factory) -> Iterator[LiveServer]:
    wide = {"slo_first_token_ms": 60_000, "slo_token_ms": 10_000}
    with serve([llama], tmp_path_factory.mktemp("home"), **wide) as live:
        yield live


@pytest.fixture
def client(chatting) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=f"http://{chatting.address}/v1", max_retries=0)


def greedy(model, prompt, most):
    """What the model says when it is asked alone."""
    sequence, said = model.begin(model.encode(prompt)), []
    while len(said) < most:
        (logits,) = model.step([sequence], [GateContext(0.0)])
        if logits is not None:
            token = int(logits.argmax())
            if token in model.end_tokens:
                break
            said.append(token)
            sequence.append(token)
    return model.decode(said).decode("utf-8", "replace")


def test_many_at_once_say_what_each_says_alone(client, llama, chatting):
    from concurrent.futures import ThreadPoolExecutor

    prompts = [f"{n} white whales swam by" for n in range(6)]

    def ask(prompt):
        stream = client.completions.create(model="llama", prompt=prompt, max_tokens=12, temperature=0, stream=True)
        return "".join(chunk.choices[0].text for chunk in stream)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, prompts)) == [greedy(llama, prompt, 12) for prompt in prompts]
    samples = chatting.metrics()
    assert samples['sluice_tokens_total{kind="generated",model="llama"}'] >= 6
    assert samples['sluice_first_token_duration_seconds_count{model="llama"}'] == 6
    assert samples['sluice_slo_token_seconds{model="llama"}'] == 10
    assert samples['sluice_inflight{model="llama"}'] == 0


def test_a_chat(client, llama):
    answer = client.chat.completions.create(model="llama", messages=USER, max_tokens=8, temperature=0)
    prompt = llama.chat_prompt(USER)
    assert answer.choices[0].message.content == greedy(llama, prompt, 8)
    assert answer.usage.prompt_tokens == len(llama.encode(prompt))
    assert answer.model_extra["sluice"]["slo_met"] is True


def test_under_v2_texts_go_in_and_whole_texts_come_out(chatting, llama):
    prompts = ["a white whale", "the sea"]
    tensors = [
        {"name": "prompt", "datatype": "BYTES", "shape": [2], "data": prompts},
        {"name": "max_tokens", "datatype": "INT32", "shape": [1], "data": [9]},
    ]
    answer = chatting.http.post("/v2/models/llama/infer", json={"inputs": tensors}).json()
    assert answer["outputs"][0]["data"] == [greedy(llama, prompt, 9) for prompt in prompts]
    assert answer["parameters"]["slo_met"] is True
    refused = chatting.http.post("/v2/models/llama/infer", json={"inputs": tensors, "parameters": {"slo_ms": 5}})
    assert (refused.status_code, refused.json()["error"].startswith("parameters.slo_ms: is not for generations")) == (
        400,
        True,
    )


def test_prompts_in_a_list_say_what_each_says_alone(client, llama):
    prompts = ["a white whale", "the sea", "ships"]
    wanted = [greedy(llama, prompt, 9) for prompt in prompts]
    for given in (prompts, [llama.encode(prompt) for prompt in prompts]):
        answer = client.completions.create(model="llama", prompt=given, max_tokens=9, temperature=0)
        assert [choice.text for choice in answer.choices] == wanted
        assert answer.usage.prompt_tokens == sum(len(llama.encode(prompt)) for prompt in prompts)
        texts = [""] * 3
        for chunk in client.completions.create(model="llama", prompt=given, max_tokens=9, temperature=0, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == wanted


def test_a_prompt_beyond_the_context(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="llama", prompt="a" * 96)
    assert (refused.value.param, refused.value.status_code) == ("prompt", 400)


def test_its_slo_is_of_two_times(chatting):
    path = "/v2/models/llama/slo"
    assert chatting.http.patch(path, json={"token_ms": 9000}).json()["token_ms"] == 9000
    assert chatting.http.get(path).json()["first_token_ms"] == 60_000
    assert chatting.http.patch(path, json={"latency_ms": 5}).status_code == 400
    assert chatting.http.patch(path, json={"token_ms": 10_000}).status_code == 200


def test_the_command_knows_its_slo(chatting):
    url = ["--url", f"http://{chatting.address}"]
    shown = CliRunner().invoke(command_line(), ["slo", "llama", "--token-ms", "8000", *url])
    assert "8000 ms" in shown.output
    assert "first token" in shown.output
    refused = CliRunner().invoke(command_line(), ["slo", "llama", "--latency-ms", "5", *url])
    assert refused.exit_code == 1
    assert "latency_ms" in refused.output
    CliRunner().invoke(command_line(), ["slo", "llama", "--token-ms", "10000", *url])


def test_a_connection_that_is_closed_ends_its_generation(chatting):
    before = chatting.metrics()
    body = b'{"model": "llama", "prompt": "a", "max_tokens": 90, "stream": true}'
    host, port = chatting.address.split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + 5
    while chatting.metrics()['sluice_inflight{model="llama"}'] and time.monotonic() < deadline:
        time.sleep(0.01)
    after = chatting.metrics()
    ended = {
        outcome: after.get(name, 0) - before.get(name, 0)
        for outcome in ("ok", "cancelled", "error")
        if (name := f'sluice_requests_total{{model="llama",outcome="{outcome}",protocol="openai"}}')
    }
    # A generation that was over before its client had gone counts as what it was.
    assert ended["cancelled"] + ended["ok"] == 3
    assert ended["error"] == 0
    assert after['sluice_inflight{model="llama"}'] == 0
