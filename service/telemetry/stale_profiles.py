"""Profiles that are older than their weights.

A model and its profile are loaded together, and only where they fit. The files can change under a running server, by
training or by an upgrade; then the next load refuses them, which the operator wants to know before it happens.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from models.gating.profile import Profile
from models.zoo.fashion_weights import weights_digest


class ModelFiles(Protocol):
    """Where a model's weights and its profile lie."""

    @property
    def weights(self) -> Path: ...
    @property
    def profile(self) -> Path: ...


Stamp = tuple[int, int, int, int]


class StaleProfiles:
    """Compares the files of models; `files` is None for a model that has none. A file is read again only when its time
    or size has changed, so asking at each scrape costs two `stat` calls a model.

    >>> stale = StaleProfiles(lambda name: fashion_files())      # doctest: +SKIP
    >>> stale(["fashion"])                                                # doctest: +SKIP
    {'fashion': False}
    """

    def __init__(self, files: Callable[[str], ModelFiles | None]) -> None:
        self._files = files
        self._known: dict[str, tuple[Stamp, bool]] = {}

    def __call__(self, models: Iterable[str]) -> dict[str, bool]:
        """Whether the weights on disk are others than those that the profile on disk was measured on, of each model
        whose files can be read.
        """
        found = {model: self._stale(model) for model in models}
        return {model: stale for model, stale in found.items() if stale is not None}

    def _stale(self, model: str) -> bool | None:
        files = self._files(model)
        if files is None:
            return None
        try:
            stamp = _stamp(files)
            known = self._known.get(model)
            if known is None or known[0] != stamp:
                measured_on = Profile.load(files.profile).weights_digest
                known = self._known[model] = (stamp, measured_on != weights_digest(files.weights))
        except (OSError, ValueError, KeyError):
            return None
        return known[1]


def _stamp(files: ModelFiles) -> Stamp:
    weights, profile = files.weights.stat(), files.profile.stat()
    return weights.st_mtime_ns, weights.st_size, profile.st_mtime_ns, profile.st_size
