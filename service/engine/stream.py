"""What a generation has made, on its way from the executors to the one who reads it."""

import asyncio
from collections import deque

from service.engine.generation import Piece
from service.errors import ServiceError


class Stream:
    """Belongs to one event loop: `put` and `get` are called there, and one task reads. What bounds it is the engine,
    which makes no more while too much is unread.
    """

    def __init__(self) -> None:
        self._waiting: deque[Piece | ServiceError] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: Piece | ServiceError) -> None:
        """Adds a piece, or the error that ends the stream."""
        self._waiting.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Piece:
        """The next piece. Raises the error that ends the stream."""
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        item = self._waiting.popleft()
        if isinstance(item, ServiceError):
            raise item
        return item
