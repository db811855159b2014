"""Sending without pauses of one's own."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, the garbage collector rests. It would look through all that was ever imported, a tenth of a second each
    time, and what falls due meanwhile would be sent late: the server would be blamed for the load generator. For runs
    that end.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
