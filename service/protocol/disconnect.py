"""Work that stops when nobody waits for it any more."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from service.errors import ClientGone

T = TypeVar("T")


async def unless_disconnected(work: Awaitable[T], receive: Receive) -> T:
    """The result of ``work``, which is cancelled when the client closes the connection first (then raises ClientGone).

    ``receive`` is the request's own, its body already read. The work runs in the caller's own task, since another one
    for each request costs more than reading it; cancelling the caller cancels the work as it would anyway.
    """
    owner = asyncio.current_task()
    assert owner is not None
    watcher = asyncio.ensure_future(_cancel_when_gone(owner, receive))
    try:
        return await work
    except asyncio.CancelledError:
        # Only the watcher's own request to cancel is taken back: the server may be stopping at the same time.
        if watcher.done() and not watcher.cancelled() and owner.uncancel() == 0:
            raise ClientGone("the client closed the connection") from None
        raise
    finally:
        watcher.cancel()


async def _cancel_when_gone(owner: "asyncio.Task[object]", receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    owner.cancel()
