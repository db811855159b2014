import asyncio

import pytest

from service.errors import ClientGone
from service.protocol.disconnect import Caller, unless_disconnected


async def never():
    await asyncio.Event().wait()


async def test_the_result_comes_through():
    async def work():
        return 7

    assert await unless_disconnected(work(), never) == 7


async def test_an_error_comes_through():
    async def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await unless_disconnected(work(), never)


async def test_messages_that_are_no_disconnect_are_passed_over():
    messages = iter([{"type": "http.request", "body": b""}])

    async def receive():
        message = next(messages, None)
        return message if message is not None else await never()

    async def work():
        await asyncio.sleep(0.01)
        return 7

    assert await unless_disconnected(work(), receive) == 7


async def test_a_disconnect_cancels_the_work_and_waits_for_it():
    steps = []

    async def work():
        try:
            await never()
        finally:
            await asyncio.sleep(0)
            steps.append("withdrawn")

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await unless_disconnected(work(), receive)
    assert steps == ["withdrawn"]


async def test_nothing_is_left_running():
    async def work():
        return 7

    before = asyncio.all_tasks()
    await unless_disconnected(work(), never)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_caller_that_leaves_cancels_the_work():
    caller = Caller()

    async def work():
        caller.leave()
        await never()

    with pytest.raises(ClientGone):
        await unless_disconnected(work(), never, caller)


async def test_work_for_a_caller_that_has_left_is_not_begun():
    caller, begun = Caller(), []
    caller.leave()

    async def work():
        await asyncio.sleep(0)
        begun.append(True)

    with pytest.raises(ClientGone):
        await unless_disconnected(work(), never, caller)
    assert not begun


async def test_a_caller_that_leaves_after_its_answer_cancels_nothing():
    caller = Caller()

    async def work():
        return 7

    assert await unless_disconnected(work(), never, caller) == 7
    caller.leave()
    await asyncio.sleep(0)


async def test_a_server_that_stops_is_no_caller_that_left():
    async def work():
        await never()

    task = asyncio.create_task(unless_disconnected(work(), never, Caller()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
