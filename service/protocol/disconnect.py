"""Work that stops when nobody waits for it any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from service.errors import ClientGone

T = TypeVar("T")

CALLER = "sluice.caller"
"""Where a scope has the `Caller` of its connection: the server's own addition to ASGI."""


class Caller:
    """Who waits at the other end of a connection. One request of a connection is worked on at a time.

    `has_sent` says that all of that request is there. `hang_up` ends the connection, with what was not read yet.
    """

    __slots__ = ("_worker", "gone", "hang_up", "has_sent")

    def __init__(self, hang_up: Callable[[], None] = lambda: None) -> None:
        self.hang_up = hang_up
        self.gone = False
        self.has_sent = False
        self._worker: asyncio.Task[Any] | None = None

    def leave(self) -> None:
        """The connection was closed: what is worked on for it is cancelled."""
        self.gone = True
        if self._worker is not None:
            self._worker.cancel()

    def watch(self, worker: "asyncio.Task[Any]") -> None:
        """From now on ``worker`` is what is cancelled; at once where the caller has left already."""
        self._worker = worker
        if self.gone:
            worker.cancel()

    def unwatch(self) -> None:
        self._worker = None


def caller_of(scope: Scope) -> Caller | None:
    """Who sent a request; None under another server than ours."""
    caller: Caller | None = scope.get(CALLER)
    return caller


async def unless_disconnected(work: Awaitable[T], receive: Receive, caller: Caller | None = None) -> T:
    """The result of ``work``, which is cancelled when the client closes the connection first (then raises ClientGone).

    ``receive`` is the request's own, its body already read, and listened to where there is no ``caller``. The work runs
    in the task that awaits this, since another one for each request costs more than reading it; cancelling that task
    cancels the work as it would anyway.
    """
    if caller is None:
        # ASGI itself tells of the end of a connection only to a task that waits for it.
        caller = Caller()
        listener = asyncio.ensure_future(_listen(caller, receive))
    else:
        listener = None
    owner = asyncio.current_task()
    assert owner is not None
    caller.watch(owner)
    try:
        return await work
    except asyncio.CancelledError:
        # Only the caller's own request to cancel is taken back: the server may be stopping at the same time.
        if caller.gone and owner.uncancel() == 0:
            raise ClientGone("the client closed the connection") from None
        raise
    finally:
        caller.unwatch()
        if listener is not None:
            listener.cancel()


async def _listen(caller: Caller, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    caller.leave()
