"""Where SLOs are kept over a restart."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from service.control.generation_slo import GenerationSLO, Objective
from service.control.slo import SLO, InvalidSLO
from service.control.speech_slo import SpeechSLO

_LOCKED_SECONDS = 1.0
_TABLES: tuple[tuple[str, type[Objective]], ...] = (
    ("slo", SLO),
    ("generation_slo", GenerationSLO),
    ("speech_slo", SpeechSLO),
)


class SloStoreError(Exception):
    """The store cannot be read or written; the message says which file, why, and what to do."""


class SloStore(Protocol):
    """Keeps the SLO of each model by its name."""

    def get(self, model: str) -> Objective | None:
        """The SLO kept for a model, None where there is none. Raises `SloStoreError`."""

    def put(self, model: str, slo: Objective) -> None:
        """Keeps an SLO, whole or not at all. Raises `SloStoreError`."""


class MemorySloStore:
    """Keeps SLOs as long as the process lives."""

    def __init__(self) -> None:
        self._slos: dict[str, Objective] = {}

    def get(self, model: str) -> Objective | None:
        return self._slos.get(model)

    def put(self, model: str, slo: Objective) -> None:
        self._slos[model] = slo


class SqliteSloStore:
    """Keeps SLOs in a SQLite file, which is made where there is none. Raises `SloStoreError` at once if the file cannot
    be used.

    A connection lives for one call: calls are rare, may come from any thread, and a file replaced under the server is
    picked up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SloStoreError(f"SLO store {path}: {error.strerror}") from error
        with self._connection() as connection:
            # The write-ahead log makes a commit one append: it survives the process being killed, without a sync of the
            # disk each time.
            connection.execute("PRAGMA journal_mode = WAL")
            for table, kind in _TABLES:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (model TEXT PRIMARY KEY, {_columns(kind)})")

    def get(self, model: str) -> Objective | None:
        for table, kind in _TABLES:
            names = [field.name for field in fields(kind)]
            with self._connection() as connection:
                row = connection.execute(f"SELECT {', '.join(names)} FROM {table} WHERE model = ?", (model,)).fetchone()
            if row is None:
                continue
            values = dict(zip(names, row, strict=True))
            try:
                return kind(**{**values, "shed": bool(values["shed"])})
            except InvalidSLO as error:
                raise SloStoreError(f"SLO store {self._path}: the SLO of {model!r} cannot be: {error}") from error
        return None

    def put(self, model: str, slo: Objective) -> None:
        with self._connection() as connection:
            for table, kind in _TABLES:
                if type(slo) is kind:
                    marks = ", ".join("?" * len(slo.as_dict()))
                    values = (model, *slo.as_dict().values())
                    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, {marks})", values)
                else:
                    # A name that stood for another kind of model before.
                    connection.execute(f"DELETE FROM {table} WHERE model = ?", (model,))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=_LOCKED_SECONDS)
            try:
                connection.execute("PRAGMA synchronous = NORMAL")
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            raise SloStoreError(f"SLO store {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise SloStoreError(
                f"SLO store {self._path}: {error}; move the file away to start with the SLOs of the settings"
            ) from error


def _columns(kind: type[Objective]) -> str:
    types = {"shed": "INTEGER"}
    return ", ".join(f"{field.name} {types.get(field.name, 'REAL')} NOT NULL" for field in fields(kind))
