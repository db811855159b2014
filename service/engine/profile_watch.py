"""Picks up profiles that change while the server runs: `sluice calibrate` writes one, and the model is served with it
without a restart."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from service.errors import ServiceError

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


class Reloads(Protocol):
    """The engine, as far as this needs it."""

    def names(self) -> Sequence[str]: ...
    def is_ready(self, name: str) -> bool: ...
    async def reload(self, name: str) -> None: ...


async def follow_profiles(engine: Reloads, stamp: Callable[[str], object], seconds: float = LOOK_SECONDS) -> None:
    """Looks at every ready model's profile each so many seconds, until it is cancelled, and has a model loaded anew
    when its profile is another. `stamp` tells one profile from the next; it may read files and runs on a thread.

    A model that cannot be loaded anew is served as it was, and tried again when its profile changes once more."""
    seen: dict[str, object] = {}
    while True:
        for name in [name for name in engine.names() if engine.is_ready(name)]:
            try:
                now = await asyncio.to_thread(stamp, name)
                if seen.setdefault(name, now) != now:
                    seen[name] = now
                    await engine.reload(name)
                    log.info("model %s has a new profile and is served with it", name)
            except ServiceError as error:
                log.error("the new profile of model %s is not used: %s", name, error)
            except Exception:
                # A folder that is being replaced, say; the next look finds it whole.
                log.exception("the profile of model %s could not be looked at", name)
        await asyncio.sleep(seconds)
