import asyncio

import pytest

from loadtest.saturation import saturate
from tests.loadtest.test_driver import OK, Plain, answering


async def test_connections_are_busy_all_the_time():
    async def slow(reader, writer):
        await asyncio.sleep(0.02)
        writer.write(OK)

    async with answering(slow) as address:
        one = await saturate(address, Plain(), 1, 0.4)
        four = await saturate(address, Plain(), 4, 0.4)
    assert min(one.latencies) >= 0.02
    assert one.rate <= 50
    assert four.rate > 2 * one.rate


@pytest.mark.parametrize("wrong", [b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_a_server_that_fails_has_no_capacity(wrong):
    async def answer(reader, writer):
        writer.write(wrong)

    async with answering(answer) as address:
        with pytest.raises(RuntimeError, match=r"did not serve|closed"):
            await saturate(address, Plain(), 2, 0.2)
