"""Generations that are read side by side."""

import asyncio
from contextlib import aclosing

import pytest

from service.engine.generation import Piece
from service.engine.interleave import interleave
from service.errors import Internal


class Source:
    """Gives pieces when it is allowed to, and knows whether it was closed."""

    def __init__(self, texts, fault=None):
        self.closed, self.given = False, 0
        self._texts, self._fault = texts, fault

    async def pieces(self):
        try:
            for text in self._texts:
                await asyncio.sleep(0)
                self.given += 1
                yield Piece(text)
            if self._fault:
                raise self._fault
        finally:
            self.closed = True


async def test_all_pieces_come_in_the_order_of_their_generation():
    sources = [Source("abc"), Source(""), Source("xy")]
    found = [(number, piece.text) async for number, piece in interleave([source.pieces() for source in sources])]
    assert [text for number, text in found if number == 0] == ["a", "b", "c"]
    assert [text for number, text in found if number == 2] == ["x", "y"]
    assert all(source.closed for source in sources)


@pytest.mark.parametrize("fault", [Internal("lost"), RuntimeError("a fault")])
async def test_one_that_fails_ends_the_others(fault):
    sources = [Source("a" * 100), Source("x", fault)]
    with pytest.raises(type(fault), match=str(fault)):
        async for _ in interleave([source.pieces() for source in sources]):
            pass
    assert all(source.closed for source in sources)
    assert sources[0].given < 100


@pytest.mark.parametrize("count", [1, 3])
async def test_what_is_not_read_is_not_made_and_leaving_closes_all(count):
    sources = [Source("a" * 100) for _ in range(count)]
    async with aclosing(interleave([source.pieces() for source in sources])) as pieces:
        await anext(pieces)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(source.given for source in sources) <= 2 + count
    assert all(source.closed for source in sources)


async def test_where_the_first_is_refused_at_once_the_others_do_not_begin():
    begun = []

    async def refused():
        raise Internal("refused")
        yield

    async def other():
        begun.append(True)
        yield Piece("x")

    with pytest.raises(Internal, match="refused"):
        [piece async for piece in interleave([refused(), other(), other()])]
    assert begun == []
