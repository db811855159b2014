"""Results that are kept as they come, so that a benchmark that breaks off can go on: a file of JSON lines, of which the
first says what is compared, and each other is a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """In `path`, or only in memory. With `resume` what the file holds already counts, but for the failures."""

    def __init__(self, path: Path | None = None, resume: bool = False) -> None:
        self._path = path
        self._about: dict[str, Any] | None = None
        self.runs: list[dict[str, Any]] = []
        if path is not None and resume and path.exists():
            lines = list(_read(path))
            self._about = lines[0] if lines else None
            self.runs = [line for line in lines[1:] if "failed" not in line]

    def begin(self, plan: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is compared under this plan: what the file says, else what `measure` finds.

        Raises `ValueError` where the file was written under another plan.
        """
        if self._about is None:
            self._about = {"plan": plan, **measure()}
        elif self._about["plan"] != plan:
            raise ValueError(f"{self._path} holds results of another plan: {self._about['plan']}")
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(b"".join(_line(value) for value in (self._about, *self.runs)))
        return self._about

    def has(self, server: str, overload: float) -> bool:
        return any(run["server"] == server and run["overload"] == overload for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        self.runs.append(run)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_line(run))


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines; one that broke off in the middle is left out."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(orjson.loads(line))
        except ValueError:
            break
    return found


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
