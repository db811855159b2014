"""Profiles that are older than their weights.

A model and its profile are loaded together, and only where they fit. The files can change under a running server, by
training or by an upgrade; then the next load refuses them or serves the model dense, which the operator wants to know
before it happens.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from models.gating.profile import Profile
from models.zoo.catalog import MeasuredFiles

LOOK_SECONDS = 15.0

Stamp = tuple[tuple[Path, int, int], ...]


class StaleProfiles:
    """Compares the files of models; `files` is None for a model that has no profile. Weights are read again only when
    the time or the size of a file has changed: a look costs a `stat` call a file.

    >>> stale = StaleProfiles(lambda name: catalog.measured_files(name))      # doctest: +SKIP
    >>> stale.look(["fashion"])                                                # doctest: +SKIP
    >>> stale.known                                                            # doctest: +SKIP
    {'fashion': False}
    """

    def __init__(self, files: Callable[[str], MeasuredFiles | None]) -> None:
        self.known: Mapping[str, bool] = {}
        """At the last look: whether the weights on disk are others than those that the profile on disk was measured
        on, of each model whose files could be read."""
        self._files = files
        self._seen: dict[str, tuple[Stamp, bool]] = {}

    def look(self, models: Iterable[str]) -> None:
        """Reads what changed. It may take long: a gigabyte of weights takes seconds."""
        found = {model: self._stale(model) for model in models}
        self.known = {model: stale for model, stale in found.items() if stale is not None}

    async def follow(self, models: Callable[[], Iterable[str]], seconds: float = LOOK_SECONDS) -> None:
        """Looks each so many seconds, on a thread, until it is cancelled."""
        while True:
            await asyncio.to_thread(self.look, tuple(models()))
            await asyncio.sleep(seconds)

    def _stale(self, model: str) -> bool | None:
        try:
            files = self._files(model)
            if files is None:
                return None
            stamp = tuple(_stamp(path) for path in (*files.weights, files.profile))
            seen = self._seen.get(model)
            if seen is None or seen[0] != stamp:
                measured_on = Profile.load(files.profile).weights_digest
                seen = self._seen[model] = (stamp, measured_on != files.digest())
        except (OSError, ValueError, KeyError):
            return None
        return seen[1]


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size
