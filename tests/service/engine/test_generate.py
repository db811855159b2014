"""Generations on a running engine: continuous batching, streams, ends of every kind, and that each is counted once."""

import asyncio
import gc
import threading
import time
import weakref
from contextlib import aclosing

import numpy as np
import pytest

from models.model import GateContext
from service.control.generation_slo import GenerationSLO
from service.engine.request import Request, RequestOptions
from service.errors import Expired, Internal, InvalidRequest, NotFound, Refused, Unavailable
from tests.service.engine.fake_generator import FakeGenerator, generation, taking
from tests.service.engine.fakes import FakeModel, Watcher
from tests.service.engine.harness import Held, request, running, until

WIDE = GenerationSLO(60_000, 10_000, quality_floor=0.5)


def hosting(*models, **settings):
    return running(*models, **{"default_generation_slo": WIDE} | settings)


async def text_of(engine, request):
    pieces = [piece async for piece in engine.generate(request)]
    return "".join(piece.text for piece in pieces), pieces[-1]


async def test_a_text_to_its_end():
    model, watcher = FakeGenerator(), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        text, last = await text_of(engine, generation("a prompt of 21 tokens"))
    assert (text, last.finish_reason) == ("Hello, world", "stop")
    done = last.finished
    # Twelve characters and the end, and three parts of the prompt.
    assert (done.tokens.prompt_tokens, done.tokens.generated_tokens, len(model.steps)) == (21, 13, 3 + 12)
    assert done.context.macs == (21 + 12) * 1_000_000
    assert done.slo_met
    assert done.level == 0
    ((told,),) = [watcher.told]
    assert (told.outcome, told.protocol, told.slo_met, told.finished) == ("ok", "openai", True, done)


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"max_tokens": 5}, "Hello", "length"),
        ({"stops": ["wor"]}, "Hello, ", "stop"),
        ({"stops": ["zzz", "ld", "lo"]}, "Hel", "stop"),
        ({"stops": ["o, w"], "max_tokens": 6}, "Hello,", "length"),
        ({"stops": ["Hello, world!"]}, "Hello, world", "stop"),
    ],
)
async def test_a_text_ends_where_it_is_to(options, text, reason):
    async with hosting(FakeGenerator()) as engine:
        told, last = await text_of(engine, generation(**options))
    assert (told, last.finish_reason) == (text, reason)


async def test_a_text_ends_with_the_context():
    async with hosting(FakeGenerator(endless=True, context_length=20)) as engine:
        text, last = await text_of(engine, generation("x" * 16))
    assert (text, last.finish_reason) == ("Hell", "length")


async def test_characters_are_whole():
    async with hosting(FakeGenerator(reply="zwölf €".encode())) as engine:
        pieces = [piece.text async for piece in engine.generate(generation())]
    assert pieces == ["z", "w", "ö", "l", "f", " ", "€", ""]


async def test_generations_join_and_leave_between_steps():
    model = FakeGenerator(endless=True, work=taking(0.002))
    async with hosting(model, generations=3) as engine:
        long = asyncio.create_task(text_of(engine, generation("A", max_tokens=60)))
        await until(lambda: len(model.steps) > 5)
        others = await asyncio.gather(*(text_of(engine, generation(name, max_tokens=10)) for name in "BCDE"))
        await long
    assert all(last.finish_reason == "length" for _, last in others)
    together = [names for names, _ in model.steps]
    assert max(len(names) for names in together) == 3
    assert {ord("A"), ord("B"), ord("C")} in [set(names) for names in together]
    # A is in every step while it runs: nobody who joins or leaves holds it up.
    assert sum(ord("A") in names for names in together) == 60
    assert len(together) <= 60 + 20


async def test_a_closed_stream_ends_within_one_step():
    model, watcher = FakeGenerator(endless=True, work=taking(0.005)), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        async with aclosing(engine.generate(generation())) as pieces:
            async for _ in pieces:
                if len(model.steps) >= 5:
                    break
        steps = len(model.steps)
        await asyncio.sleep(0.05)
        assert len(model.steps) <= steps + 1
        assert engine.inflight("fake") == 0
    assert watcher.outcomes == ["cancelled"]


async def test_a_cancelled_task_ends_within_one_step_and_while_it_waits():
    model, watcher = FakeGenerator(endless=True, work=taking(0.005)), Watcher()
    async with hosting(model, watcher=watcher, generations=1) as engine:
        tasks = [asyncio.create_task(text_of(engine, generation(name))) for name in "AB"]
        await until(lambda: len(model.steps) >= 3 and engine.queue_depth("fake") == 1)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        steps = len(model.steps)
        await asyncio.sleep(0.03)
        assert len(model.steps) <= steps + 1
        assert (engine.queue_depth("fake"), engine.inflight("fake")) == (0, 0)
    assert watcher.outcomes == ["cancelled"] * 2
    assert {name for names, _ in model.steps for name in names} == {ord("A")}


async def test_who_does_not_read_pauses_alone_and_goes_on():
    model = FakeGenerator(endless=True, work=taking(0.001))
    async with hosting(model, unread_limit=4) as engine:
        async with aclosing(engine.generate(generation("S", max_tokens=30))) as slow:
            await anext(slow)
            text, _ = await text_of(engine, generation("F", max_tokens=40))
            assert len(text) == 40
            taken = sum(ord("S") in names for names, _ in model.steps)
            assert taken <= 6
            rest = [piece async for piece in slow]
        assert sum(len(piece.text) for piece in rest) == 29
        done = rest[-1].finished
        # The time for which the reader was away is not the server's.
        assert done.tokens.token_seconds < done.duration / 29


async def test_each_has_the_level_of_its_own_slo():
    model = FakeGenerator(endless=True, work=taking(0.004))
    async with hosting(model, warmup_runs=3) as engine:
        tight = asyncio.create_task(text_of(engine, generation("T", max_tokens=30, token_ms=0.05)))
        pinned = asyncio.create_task(text_of(engine, generation("P", max_tokens=30, level=0.3)))
        _, wide = await text_of(engine, generation("W", max_tokens=30))
        (_, tight), (_, pinned) = await asyncio.gather(tight, pinned)
    assert wide.finished.level == 0
    assert pinned.finished.level == pytest.approx(0.3)
    assert tight.finished.level > 0.5
    assert not tight.finished.slo_attainable and not tight.finished.slo_met
    assert wide.finished.slo_met


async def test_refused_when_all_places_are_taken_and_too_many_wait():
    model, watcher = FakeGenerator(endless=True, work=taking(0.003)), Watcher()
    async with hosting(model, generations=1, queue_limit=1, warmup_runs=2, watcher=watcher) as engine:
        tasks = []
        for name, where in (("A", engine.inflight), ("B", engine.queue_depth)):
            tasks.append(asyncio.create_task(text_of(engine, generation(name, max_tokens=15))))
            await until(lambda where=where: where("fake") == 1)
        with pytest.raises(Refused, match="1 wait, the most that may; come back in") as refused:
            await text_of(engine, generation("C"))
        assert refused.value.retry_after_seconds >= 1
        await asyncio.gather(*tasks)
        with pytest.raises(Refused):
            # Nothing that runs leaves in time for a second one.
            long = asyncio.create_task(text_of(engine, generation("L", max_tokens=150)))
            await until(lambda: engine.inflight("fake") == 1)
            await text_of(engine, generation("D", first_token_ms=1.0))
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
    assert sorted(watcher.outcomes) == ["cancelled", "ok", "ok", "refused", "refused"]


async def test_the_more_urgent_joins_first():
    model = FakeGenerator(work=taking(0.002))
    async with hosting(model, generations=1) as engine:
        tasks = [asyncio.create_task(text_of(engine, generation("A")))]
        await until(lambda: engine.inflight("fake") == 1)
        for name, options in (("B", {}), ("C", {"first_token_ms": 30_000}), ("D", {"priority": 1})):
            tasks.append(asyncio.create_task(text_of(engine, generation(name, **options))))
        await asyncio.gather(*tasks)
    order = list(dict.fromkeys(names[0] for names, _ in model.steps))
    assert bytes(order) == b"ADCB"


async def test_a_timeout_is_hard():
    model, watcher = FakeGenerator(endless=True, work=taking(0.002)), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        with pytest.raises(Expired, match="timeout of 30000 µs"):
            await text_of(engine, generation(timeout_us=30_000))
        await until(lambda: engine.inflight("fake") == 0)
    assert watcher.outcomes == ["expired"]
    assert watcher.told[0].slo_met is False


async def test_a_fault_of_the_model_ends_those_in_the_step_and_nothing_else():
    def work(steps):
        if steps == 3:
            raise RuntimeError("a fault")

    watcher = Watcher()
    async with hosting(FakeGenerator(work=work), watcher=watcher) as engine:
        with pytest.raises(Internal, match="'fake' failed on this request: RuntimeError"):
            await text_of(engine, generation())
        text, _ = await text_of(engine, generation())
    assert text == "Hello, world"
    assert watcher.outcomes == ["error", "ok"]


async def test_counts_that_cannot_be_are_a_fault():
    class Boasting(FakeGenerator):
        def _advance(self, sequence, context):
            logits = super()._advance(sequence, context)
            context.macs_skipped = 2 * context.macs
            return logits

    async with hosting(Boasting()) as engine:
        with pytest.raises(Internal):
            await text_of(engine, generation())
        assert engine.snapshot("fake").macs == 0


async def test_a_step_that_hangs_is_given_up():
    held = Held()
    model, watcher = FakeGenerator(work=lambda steps: held(-1.0 if steps == 2 else 0.0, None)), Watcher()
    async with hosting(model, watcher=watcher, hang_seconds=0.3) as engine:
        with pytest.raises(Internal, match=r"took longer than 0\.3 s"):
            await text_of(engine, generation())
        text, _ = await text_of(engine, generation())
        assert (text, engine.health().hung_executors) == ("Hello, world", 1)
        held.free.set()
        await until(lambda: engine.health().hung_executors == 0)
    assert watcher.outcomes == ["error", "ok"]


async def test_what_cannot_be_generated():
    watcher = Watcher()
    async with hosting(FakeModel(name="image"), FakeGenerator(), watcher=watcher) as engine:
        wrong = generation()
        wrong.model = "image"
        with pytest.raises(InvalidRequest, match="model: 'image' does not generate text"):
            await text_of(engine, wrong)
        wrong.model = "nothing"
        with pytest.raises(NotFound):
            await text_of(engine, wrong)
        with pytest.raises(InvalidRequest, match="tokens: there are none"):
            await text_of(engine, generation(""))
    assert watcher.outcomes == ["invalid"] * 3
    assert [told.model for told in watcher.told] == ["image", "", "fake"]


async def test_it_stops_with_grace():
    model, watcher = FakeGenerator(endless=True, work=taking(0.002), context_length=100_000), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        short = asyncio.create_task(text_of(engine, generation("A", max_tokens=20)))
        long = asyncio.create_task(text_of(engine, generation("B")))
        await until(lambda: len(model.steps) > 2)
        stopping = asyncio.create_task(engine.stop(grace_seconds=0.6))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await text_of(engine, generation("C"))
        text, _ = await short
        assert len(text) == 20
        with pytest.raises(Unavailable, match="the server stopped"):
            await long
        await stopping
    assert sorted(watcher.outcomes) == ["ok", "refused", "refused"]


async def test_an_unloaded_model_ends_what_is_left():
    model = FakeGenerator(endless=True, work=taking(0.002), context_length=100_000)
    async with hosting(model, hang_seconds=0.3, load={"fake": model}.__getitem__) as engine:
        task = asyncio.create_task(text_of(engine, generation()))
        await until(lambda: len(model.steps) > 2)
        await engine.unload("fake")
        with pytest.raises(Unavailable, match="was unloaded"):
            await task
        await engine.load("fake")
        text, _ = await text_of(engine, generation(max_tokens=3))
        assert text == "Hel"


async def test_a_model_that_is_loaded_anew_ends_what_it_began_and_is_forgotten():
    made = [FakeGenerator(endless=True, work=taking(0.002)), FakeGenerator(reply=b"New.")]
    old = weakref.ref(made[0])
    async with hosting(FakeGenerator(), load=lambda name: made.pop(0)) as engine:
        await engine.reload("fake")
        task = asyncio.create_task(text_of(engine, generation(max_tokens=40)))
        await until(lambda: engine.inflight("fake") == 1)
        await engine.reload("fake")
        assert (await text_of(engine, generation()))[0] == "New."
        text, _ = await task
        assert len(text) == 40
        await until(lambda: gc.collect() >= 0 and old() is None)


async def test_requests_and_generations_share_the_executors():
    order, begun, free = [], threading.Event(), threading.Event()

    def work(steps):
        order.append("step")
        if len(order) == armed:
            begun.set()
            assert free.wait(5)

    armed = 0
    model = FakeGenerator(endless=True, work=work)
    one = FakeModel(name="one", work=lambda value, context: order.append("request"))
    late = GenerationSLO(1, 0.001, quality_floor=0.9)
    async with hosting(model, one, default_generation_slo=late, warmup_runs=2) as engine:
        order.clear()
        armed = 3
        task = asyncio.create_task(text_of(engine, generation(max_tokens=150)))
        assert await asyncio.to_thread(begun.wait, 5)
        requests = [asyncio.create_task(engine.submit(request(float(n), model="one"))) for n in range(10)]
        await until(lambda: engine.queue_depth("one") == 10)
        free.set()
        await asyncio.gather(*requests)
        text, _ = await task
    assert len(text) == 150
    # Generations that are late for ever leave every second turn to requests, and have the other.
    assert order[3:23] == ["request", "step"] * 10


async def test_two_executors_share_the_generations_of_a_model():
    busy, most = 0, 0

    def work(steps):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.003)
        busy -= 1

    model = FakeGenerator(endless=True, work=work)
    async with hosting(model, executors=2) as engine:
        texts = await asyncio.gather(*(text_of(engine, generation(name, max_tokens=20)) for name in "ABCD"))
    assert {text for text, _ in texts} == {"Hello, worldHello, w"}
    assert most == 2
    # Each has its half, once there are no prompts left that take the tokens of all along.
    assert max(len(names) for names, _ in model.steps[-12:]) <= 2


def texts(*prompts, **options):
    inputs = {"prompt": np.array([prompt.encode() for prompt in prompts], object)}
    if most := options.pop("max_tokens", None):
        inputs["max_tokens"] = np.array([most], np.int32)
    return Request("7", "fake", inputs, time.monotonic(), RequestOptions(**options))


async def test_a_request_for_whole_texts_is_a_generation_for_each():
    model, watcher = FakeGenerator(work=taking(0.005)), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        done = await engine.submit(texts("A", "BB", level=0.5))
        assert done.outputs["text"].tolist() == [b"Hello, wor", b"Hello, wor"]
        longer = await engine.submit(texts("A", max_tokens=50))
        assert longer.outputs["text"].tolist() == [b"Hello, world"]
        assert engine.snapshot("fake").statistics.inference_count == 3
    assert {ord("A"), ord("B")} in [set(names) for names, _ in model.steps]
    assert (done.level, done.context.macs, done.request_id) == (0.5, (1 + 2 + 2 * 9) * 1_000_000, "7")
    assert (done.tokens.prompt_tokens, done.tokens.generated_tokens) == (3, 20)
    assert watcher.outcomes == ["ok", "ok"]
    assert [told.finished for told in watcher.told] == [done, longer]


async def test_whole_texts_may_have_times_of_their_own():
    async with hosting(FakeGenerator(work=taking(0.01)), FakeModel(name="image")) as engine:
        late = await engine.submit(texts("A", first_token_ms=5000.0, token_ms=0.01))
        assert not late.slo_met
        assert (await engine.submit(texts("A", first_token_ms=5000.0, token_ms=5000.0))).slo_met
        with pytest.raises(InvalidRequest, match="slo_token_ms: is for language models, which 'image' is not"):
            await engine.submit(request(1.0, model="image", token_ms=5.0))
        with pytest.raises(InvalidRequest, match="slo_first_token_ms: must be a finite number"):
            texts("A", first_token_ms=0)


async def test_of_whole_texts_the_first_is_refused_for_all():
    model = FakeGenerator(endless=True, work=taking(0.01))
    settings = {"warmup_runs": 3, "generations": 1, "default_generation_slo": GenerationSLO(50.0, 50.0)}
    async with hosting(model, **settings) as engine:
        await engine.submit(texts("A", max_tokens=100))
        long = asyncio.create_task(engine.submit(texts("A", max_tokens=150)))
        await until(lambda: engine.inflight("fake") == 1)
        before = model.began
        with pytest.raises(Refused):
            await engine.submit(texts(*"BCDEFG", max_tokens=150))
        assert (model.began, engine.queue_depth("fake")) == (before, 0)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long


async def test_of_whole_texts_one_that_fails_ends_the_others():
    model, watcher = FakeGenerator(endless=True, work=taking(0.002)), Watcher()
    async with hosting(model, watcher=watcher) as engine:
        with pytest.raises(Expired, match="timeout of 20000 µs"):
            await engine.submit(texts("A", "B", max_tokens=150, timeout_us=20_000))
        await until(lambda: engine.inflight("fake") == 0)
        with pytest.raises(InvalidRequest, match="slo_ms: is not for generations"):
            await engine.submit(texts("A", slo_ms=5.0))
        task = asyncio.create_task(engine.submit(texts("A", "B", max_tokens=150)))
        await until(lambda: engine.inflight("fake") == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: engine.inflight("fake") == 0)
    assert watcher.outcomes == ["expired", "invalid", "cancelled"]


async def test_the_slo_is_of_its_kind_and_kept():
    async with hosting(FakeGenerator(), FakeModel(name="image")) as engine:
        assert engine.slo("fake") == WIDE
        engine.set_slo("fake", WIDE.patched({"token_ms": 7}))
        _, last = await text_of(engine, generation())
        assert last.finished.slo_met
        assert engine.slo("image").latency_ms == 10_000


async def test_what_the_metrics_read():
    model = FakeGenerator()
    async with hosting(model, warmup_runs=1) as engine:
        shown = engine.snapshot("fake")
        assert (shown.generation.prompt_tokens, shown.generation.generated_tokens, shown.macs) == (0, 0, 0)
        for level in (0.0, 1.0):
            await text_of(engine, generation("0123456789", level=level))
        shown = engine.snapshot("fake")
        assert (shown.generation.prompt_tokens, shown.generation.generated_tokens) == (20, 26)
        assert shown.macs == 2 * 22 * 1_000_000
        assert shown.macs_skipped == pytest.approx(0.8 * 22 * 1_000_000)
        assert (shown.queue_depth, shown.inflight) == (0, 0)
        assert shown.gate.layers["first"].channels == 2 * 220
        assert shown.statistics.inference_count == shown.statistics.success.count == 2
        assert set(shown.tail_seconds) == {"50", "95", "99", "99.9"}
        assert shown.gate.slo_attainable
        engine.set_slo("fake", WIDE.patched({"token_ms": 1e-4}))
        assert not engine.snapshot("fake").gate.slo_attainable


class Reader(FakeGenerator):
    """Sees by the text itself how much of the reply is there."""

    def said(self, sequence):
        ends = (size for size in range(len(self.reply), 0, -1) if bytes(sequence.tokens[-size:]) == self.reply[:size])
        return next(ends, 0)


class Forgetful(Reader):
    """Gated, it never finds the end."""

    def _advance(self, sequence, context):
        logits = super()._advance(sequence, context)
        if logits is not None and context.level > 0:
            logits[256] = 0.0
        return logits


@pytest.mark.parametrize(("model", "agreed"), [(Reader(), True), (Forgetful(), False)])
async def test_a_share_of_gated_steps_is_done_again_dense(model, agreed):
    tight = GenerationSLO(60_000, 0.01, quality_floor=0.5)
    async with hosting(model, default_generation_slo=tight, warmup_runs=2, shadow_share=1.0) as engine:
        _, last = await text_of(engine, generation(max_tokens=13))
        assert last.finished.level > 0
        shown = engine.snapshot("fake")
        await until(lambda: engine.snapshot("fake").gate.live_samples == 1)
        # A pinned level is the client's own doing, and a dense step says nothing.
        await text_of(engine, generation(level=1.0, max_tokens=13))
        await text_of(engine, generation(level=0.0))
        await asyncio.sleep(0.02)
        after = engine.snapshot("fake")
        assert (after.shadow_agreed, after.shadow_disagreed) == ((1, 0) if agreed else (0, 1))
        # What is done for the guard is in no counter.
        assert after.macs == 3 * shown.macs


async def test_log_probabilities_are_the_models():
    async with hosting(FakeGenerator()) as engine:
        pieces = [piece async for piece in engine.generate(generation(max_tokens=3, logprobs=2))]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert [token.text for token in tokens] == [b"H", b"e", b"l"]
    assert [token.offset for token in tokens] == [0, 1, 2]
    assert all(-1e-4 < token.logprob < 0 and len(token.top) == 2 for token in tokens)
    assert tokens[0].top[0] == (b"H", tokens[0].logprob)


async def test_a_stop_takes_its_tokens_with_it():
    async with hosting(FakeGenerator()) as engine:
        pieces = [piece async for piece in engine.generate(generation(stops=["lo,"], logprobs=0))]
    assert b"".join(token.text for piece in pieces for token in piece.tokens) == b"Hel"


def test_the_fake_has_no_pending_token_left_to_hide():
    model = FakeGenerator()
    sequence = model.begin([1, 2])
    model.step([sequence], [GateContext(0.0)])
    with pytest.raises(ValueError, match="pending"):
        model.step([sequence], [GateContext(0.0)])
