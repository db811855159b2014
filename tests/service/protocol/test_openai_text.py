"""OpenAI's calls for generated text, by its own client, on a real engine."""

import asyncio
import json
import threading
import time

import openai
import pytest

from service.control.generation_slo import GenerationSLO
from service.engine.engine import Engine
from service.engine.settings import EngineSettings
from service.engine.slo_store import MemorySloStore
from tests.service.engine.fake_generator import FakeGenerator
from tests.service.engine.fakes import FakeModel, Watcher
from tests.service.engine.harness import until
from tests.service.protocol.openai_calls import openai_client, openai_http

USER = [{"role": "user", "content": "Hi"}]
SLO = GenerationSLO(60_000, 10_000, quality_floor=0.5)


@pytest.fixture
def model():
    return FakeGenerator()


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
def queue_limit():
    return 1


room_for_several = pytest.mark.parametrize("queue_limit", [8])


@pytest.fixture
async def engine(model, watcher, queue_limit):
    settings = EngineSettings(
        executors=1, warmup_runs=0, generations=2, queue_limit=queue_limit, default_generation_slo=SLO
    )
    engine = Engine([model, FakeModel(name="image")], settings, MemorySloStore(), watcher)
    await engine.start()
    yield engine
    await engine.stop(grace_seconds=0.5)


@pytest.fixture
def http(engine):
    return openai_http(engine)


@pytest.fixture
def client(http):
    return openai_client(http)


async def test_it_is_among_the_models(client):
    assert [model.id for model in (await client.models.list()).data] == ["fake"]


async def test_chat(client, watcher):
    answer = await client.chat.completions.create(model="fake", messages=USER, temperature=0)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello, world", "stop")
    assert choice.logprobs is None
    assert (answer.object, answer.model) == ("chat.completion", "fake")
    assert answer.id.startswith("chatcmpl-")
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (len("<user>Hi"), 13, 8 + 13)
    told = answer.model_extra["sluice"]
    assert {"level", "skip_rate", "macs_skipped", "quality", "queue_ms", "first_token_ms", "token_ms"} < set(told)
    assert told["slo_met"] is True
    assert 0 < told["first_token_ms"] < 1000
    assert watcher.outcomes == ["ok"]


async def test_messages_are_those_of_the_template(client, model):
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "tool_calls": None, "refusal": None},
        {"role": "user", "content": "d", "name": "me"},
    ]
    answer = await client.chat.completions.create(model="fake", messages=messages)
    assert answer.usage.prompt_tokens == len("<system>Be kind.<user>ab<assistant>c<user>d")
    with pytest.raises(openai.BadRequestError, match="the last one has to be the user's") as refused:
        await client.chat.completions.create(model="fake", messages=messages[:1])
    assert refused.value.param == "messages"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_a_chat_of_so_many_tokens(client, limit):
    answer = await client.chat.completions.create(model="fake", messages=USER, temperature=0, **{limit: 4})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hell", "length")
    assert answer.usage.completion_tokens == 4


async def test_a_streamed_chat(client):
    stream = await client.chat.completions.create(model="fake", messages=USER, temperature=0, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello, world"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {(chunk.id, chunk.object, chunk.usage) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", None)
    }
    assert chunks[-1].model_extra["sluice"]["slo_met"] is True
    assert len(chunks) > 10


async def test_a_stream_tells_its_usage_where_that_is_asked_for(client):
    stream = await client.chat.completions.create(
        model="fake", messages=USER, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage.completion_tokens == 13
    assert last.model_extra["sluice"]["level"] == 0
    assert all(chunk.usage is None and "sluice" not in chunk.model_extra for chunk in chunks)


async def test_a_stream_on_the_wire(http):
    body = {"model": "fake", "messages": USER, "temperature": 0, "max_tokens": 2, "stream": True}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert "content-length" not in response.headers
    events = response.text.split("\n\n")
    assert all(event.startswith("data: ") for event in events[:-1])
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[0][6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_completions(client):
    answer = await client.completions.create(model="fake", prompt="abc", temperature=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Hello, world", "stop")
    assert (answer.object, answer.usage.prompt_tokens) == ("text_completion", 3)
    assert answer.model_extra["sluice"]["slo_met"] is True
    stream = await client.completions.create(model="fake", prompt=["abc"], temperature=0, max_tokens=5, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    assert chunks[-1].choices[0].finish_reason == "length"


@room_for_several
async def test_several_prompts_are_a_choice_each(client, model, watcher):
    for prompts in (["abc", "de"], [[97, 98, 99], [100, 101]], ["abc", [100, 101]]):
        answer = await client.completions.create(model="fake", prompt=prompts, temperature=0, max_tokens=5, n=2)
        assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
            (index, "Hello", "length") for index in range(4)
        ]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 20, 25)
        assert answer.model_extra["sluice"]["slo_met"] is True
    assert watcher.outcomes == ["ok"] * 12
    alone = await client.completions.create(model="fake", prompt=[97, 98, 99], temperature=0)
    assert (alone.choices[0].text, alone.usage.prompt_tokens) == ("Hello, world", 3)


@room_for_several
async def test_choices_of_a_stream_are_told_by_their_index(client, engine):
    stream = await client.completions.create(
        model="fake", prompt=["a", "bc"], temperature=0, stream=True, stream_options={"include_usage": True}
    )
    texts, ends, order = {0: "", 1: ""}, {}, []
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            order.append(choice.index)
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert texts == {0: "Hello, world", 1: "Hello, world"}
    assert ends == {0: "stop", 1: "stop"}
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (3, 26)
    assert chunk.model_extra["sluice"]["slo_met"] is True
    assert engine.inflight("fake") == 0


async def test_a_bias_changes_what_is_said_and_not_its_log_probability(client):
    bias = {str(ord("H")): -100, str(ord("J")): 100}
    biased = await client.chat.completions.create(
        model="fake", messages=USER, logit_bias=bias, logprobs=True, max_tokens=1
    )
    plain = await client.chat.completions.create(
        model="fake", messages=USER, logit_bias={}, max_tokens=1, temperature=0
    )
    assert (biased.choices[0].message.content, plain.choices[0].message.content) == ("J", "H")
    assert biased.choices[0].logprobs.content[0].logprob < -10


@pytest.mark.parametrize("queue_limit", [64])
async def test_all_choices_of_a_request_are_let_in_together(client, model, engine):
    await client.completions.create(model="fake", prompt="warm", max_tokens=2)
    answer = await client.completions.create(model="fake", prompt="Hi", n=40, max_tokens=3)
    assert len(answer.choices) == 40


@room_for_several
async def test_several_answers_to_a_chat(client):
    answer = await client.chat.completions.create(model="fake", messages=USER, temperature=0, n=3)
    assert [choice.message.content for choice in answer.choices] == ["Hello, world"] * 3
    one = await client.chat.completions.create(model="fake", messages=USER, temperature=0)
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens == 3 * one.usage.completion_tokens
    texts = {0: "", 1: ""}
    async for chunk in await client.chat.completions.create(
        model="fake", messages=USER, temperature=0, n=2, stream=True
    ):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "Hello, world", 1: "Hello, world"}


@room_for_several
async def test_choices_with_a_seed_differ_and_come_again(client, model):
    model.endless, model.step = True, flat(model.step)

    async def texts():
        answer = await client.completions.create(model="fake", prompt="a", seed=5, n=2, max_tokens=12)
        return [choice.text for choice in answer.choices]

    first, second = await texts()
    assert first != second
    assert await texts() == [first, second]


async def test_a_request_is_refused_with_its_first_prompt(client, model, engine, watcher):
    model.endless, model.work = True, lambda steps: time.sleep(0.002)
    wanted = {"model": "fake", "max_tokens": 150}
    # Two run and one waits, which is all that may.
    busy = []
    for running, waiting in ((1, 0), (2, 0), (2, 1)):
        busy.append(asyncio.create_task(client.completions.create(prompt="A", **wanted)))
        await until(lambda now=(running, waiting): (engine.inflight("fake"), engine.queue_depth("fake")) == now)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as refused:
            await client.completions.create(prompt=["x"] * 4, stream=stream, **wanted)
        assert (refused.value.status_code, refused.value.code) == (503, "refused")
    assert watcher.outcomes == ["refused", "refused"]
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


@room_for_several
async def test_an_error_of_one_choice_ends_the_stream(client, model, engine):
    def work(steps):
        if steps == 4:
            raise RuntimeError("a fault")

    model.work = work
    with pytest.raises(openai.APIError, match="failed on this request: RuntimeError"):
        async for _ in await client.completions.create(model="fake", prompt=["x", "y"], temperature=0, stream=True):
            pass
    await until(lambda: engine.inflight("fake") == 0)


async def test_completions_are_short_unless_told(client, model):
    model.endless = True
    answer = await client.completions.create(model="fake", prompt="abc", temperature=0)
    assert answer.usage.completion_tokens == 16


async def test_stops_span_tokens(client):
    for stop in ("o, w", ["zzz", "o, w"]):
        answer = await client.chat.completions.create(model="fake", messages=USER, temperature=0, stop=stop)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hell", "stop")


async def test_log_probabilities(client):
    answer = await client.chat.completions.create(
        model="fake", messages=USER, temperature=0, max_tokens=2, logprobs=True, top_logprobs=2
    )
    first, second = answer.choices[0].logprobs.content
    assert (first.token, second.token, first.bytes) == ("H", "e", [ord("H")])
    assert first.logprob == pytest.approx(0, abs=1e-4)
    assert [len(token.top_logprobs) for token in (first, second)] == [2, 2]
    assert first.top_logprobs[0].token == "H"
    stream = await client.chat.completions.create(
        model="fake", messages=USER, temperature=0, max_tokens=2, logprobs=True, stream=True
    )
    told = [token.token async for chunk in stream for token in (chunk.choices[0].logprobs or NoTokens).content or []]
    assert told == ["H", "e"]
    old = await client.completions.create(model="fake", prompt="x", temperature=0, max_tokens=3, logprobs=1)
    logprobs = old.choices[0].logprobs
    assert (logprobs.tokens, logprobs.text_offset) == (["H", "e", "l"], [0, 1, 2])
    assert list(logprobs.top_logprobs[0]) == ["H"]


class NoTokens:
    content = None


async def test_our_parameters_go_in_and_come_back(client, watcher):
    extra = {"level": 0.5, "quality_floor": 0.2, "slo_first_token_ms": 9e4, "slo_token_ms": 1e-6, "priority": 2}
    answer = await client.chat.completions.create(model="fake", messages=USER, temperature=0, extra_body=extra)
    told = answer.model_extra["sluice"]
    assert (told["level"], told["slo_met"]) == (0.5, False)
    assert told["macs_skipped"] == pytest.approx(0.4)
    assert told["quality"] == pytest.approx(0.9)
    assert watcher.told[0].slo_met is False


async def test_a_seed_gives_the_same_text(client, model):
    model.step = flat(model.step)

    async def text(seed):
        answer = await client.completions.create(model="fake", prompt="x", seed=seed, max_tokens=12)
        return answer.choices[0].text

    assert await text(5) == await text(5) != await text(-6)


def flat(step):
    """Logits of which every letter is as likely as another."""

    def even(sequences, contexts):
        rows = step(sequences, contexts)
        for row in rows:
            if row is not None:
                row[:] = -20.0
                row[97:123] = 0.0
        return rows

    return even


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*USER, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**15}, "max_tokens"),
        ({"max_completion_tokens": 193}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": []}, "frequency_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {str(id): 1 for id in range(1025)}}, "logit_bias"),
        ({"logit_bias": {"257": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"²": 1}}, "logit_bias.²"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"slo_ms": 20}, "slo_ms"),
        ({"slo_first_token_ms": 0}, "slo_first_token_ms"),
        ({"slo_token_ms": "fast"}, "slo_token_ms"),
        ({"level": 2}, "level"),
        ({"level": [1]}, "level"),
        ({"quality_floor": -1}, "quality_floor"),
        ({"timeout": 0}, "timeout"),
        ({"priority": 0.5}, "priority"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_bad_chat_names_the_field(http, model, watcher, change, param):
    body = {"model": "fake", "messages": USER} | change
    response = await http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert model.steps == []
    assert watcher.outcomes == ["invalid"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a", 7]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [[1], [True]]}, "prompt[1]"),
        ({"prompt": [1, 2.5]}, "prompt[0]"),
        ({"prompt": [1, 257]}, "prompt"),
        ({"prompt": [[1], [-1]]}, "prompt[1]"),
        ({"prompt": ["a", "x" * 200]}, "prompt[1]"),
        ({"prompt": ["a", "x" * 9000]}, "prompt[1]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 33, "n": 2}, "prompt"),
        ({"n": 0}, "n"),
        ({"prompt": "x" * 200}, "prompt"),
        ({"max_tokens": 198}, "max_tokens"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"messages": USER}, "messages"),
        ({"model": "image"}, "model"),
    ],
)
async def test_a_bad_completion_names_the_field(http, watcher, change, param):
    response = await http.post("/v1/completions", json={"model": "fake", "prompt": "abc"} | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert watcher.outcomes == ["invalid"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"temperature": NaN}', b"[" * 5000, b'{"a":' * 2000])
async def test_what_is_no_request(http, body):
    for call in ("chat/completions", "completions"):
        response = await http.post(f"/v1/{call}", content=body)
        assert response.status_code == 400
        assert response.json()["error"]["message"]


async def test_a_text_that_cannot_fit_is_not_even_taken_apart(client, model):
    taken = []
    model.encode = taken.append
    with pytest.raises(openai.BadRequestError, match="has 6401 characters, more than the 200 tokens") as refused:
        await client.completions.create(model="fake", prompt="x" * 6401)
    assert (refused.value.param, refused.value.code, taken) == ("prompt", "context_length_exceeded", [])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x" * 200}, "prompt"),
        ({"prompt": ["a", "x" * 200]}, "prompt[1]"),
        ({"max_tokens": 200}, "max_tokens"),
    ],
)
async def test_what_is_longer_than_the_context_has_its_own_code(client, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(**({"model": "fake", "prompt": "Hi"} | fields))
    assert (refused.value.param, refused.value.code) == (param, "context_length_exceeded")


@pytest.mark.parametrize(("length", "beside"), [(10, False), (10_000, True)])
async def test_a_long_chat_is_laid_out_beside_the_loop(client, model, length, beside):
    threads = []

    def chat_prompt(messages):
        threads.append(threading.current_thread())
        return "Hi"

    model.chat_prompt = chat_prompt
    await client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "x" * length}])
    assert (threads[0] is not threading.current_thread()) == beside


async def test_fields_without_an_effect_here_are_taken(client):
    answer = await client.chat.completions.create(
        model="fake", messages=USER, temperature=0, user="me", metadata={"a": "b"}, response_format={"type": "text"}
    )
    assert answer.choices[0].message.content == "Hello, world"


async def test_a_model_that_is_not_there(client, watcher):
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="other", messages=USER)
    assert missing.value.code == "model_not_found"
    assert [(told.model, told.outcome) for told in watcher.told] == [("", "invalid")]


async def test_a_refused_stream_has_its_own_status(client, model, engine):
    hold = asyncio.Event()
    loop = asyncio.get_running_loop()
    model.endless = True
    model.work = lambda steps: asyncio.run_coroutine_threadsafe(hold.wait(), loop).result(5)
    tasks = [asyncio.create_task(client.completions.create(model="fake", prompt="x", max_tokens=3))]
    await until(lambda: model.steps)
    tasks.append(asyncio.create_task(client.completions.create(model="fake", prompt="x", max_tokens=3)))
    await until(lambda: engine.queue_depth("fake") == 1)
    with pytest.raises(openai.InternalServerError) as refused:
        await client.completions.create(model="fake", prompt="x", stream=True)
    assert (refused.value.status_code, refused.value.code) == (503, "refused")
    assert int(refused.value.response.headers["retry-after"]) >= 1
    hold.set()
    await asyncio.gather(*tasks)


async def test_an_error_in_a_stream_is_its_last_event(client, model, watcher):
    def work(steps):
        if steps == 4:
            raise RuntimeError("a fault")

    model.work = work
    told = []
    with pytest.raises(openai.APIError, match="failed on this request: RuntimeError"):
        async for chunk in await client.completions.create(model="fake", prompt="x", temperature=0, stream=True):
            told.append(chunk.choices[0].text)
    assert "".join(told) == "Hell"
    assert watcher.outcomes == ["error"]


async def test_a_client_that_leaves_stops_its_generation(client, model, watcher, engine):
    model.endless = True
    call = asyncio.create_task(client.chat.completions.create(model="fake", messages=USER))
    await until(lambda: len(model.steps) > 3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: engine.inflight("fake") == 0)
    assert watcher.outcomes == ["cancelled"]
