"""Taking texts apart on the event loop, or beside it where that takes so long that others would wait."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LONG = 8 * 1024
"""Characters or bytes; so many take about as long as a change of threads and its way back, ten times over."""


async def beside_the_loop_if(length: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives, which takes apart so much text: on a thread if it is long."""
    if length > LONG:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)
