"""Where SLOs are kept over a restart."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from service.control.slo import SLO, InvalidSLO

_LOCKED_SECONDS = 1.0


class SloStoreError(Exception):
    """The store cannot be read or written; the message says which file, why, and what to do."""


class SloStore(Protocol):
    """Keeps the SLO of each model by its name."""

    def get(self, model: str) -> SLO | None:
        """The SLO kept for a model, None where there is none. Raises `SloStoreError`."""

    def put(self, model: str, slo: SLO) -> None:
        """Keeps an SLO, whole or not at all. Raises `SloStoreError`."""


class MemorySloStore:
    """Keeps SLOs as long as the process lives."""

    def __init__(self) -> None:
        self._slos: dict[str, SLO] = {}

    def get(self, model: str) -> SLO | None:
        return self._slos.get(model)

    def put(self, model: str, slo: SLO) -> None:
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
            connection.execute(
                "CREATE TABLE IF NOT EXISTS slo (model TEXT PRIMARY KEY, latency_ms REAL NOT NULL,"
                " percentile REAL NOT NULL, quality_floor REAL NOT NULL, shed INTEGER NOT NULL)"
            )

    def get(self, model: str) -> SLO | None:
        with self._connection() as connection:
            row = connection.execute(
                "SELECT latency_ms, percentile, quality_floor, shed FROM slo WHERE model = ?", (model,)
            ).fetchone()
        if row is None:
            return None
        latency_ms, percentile, quality_floor, shed = row
        try:
            return SLO(latency_ms, percentile, quality_floor, bool(shed))
        except InvalidSLO as error:
            raise SloStoreError(f"SLO store {self._path}: the SLO of {model!r} cannot be: {error}") from error

    def put(self, model: str, slo: SLO) -> None:
        with self._connection() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO slo VALUES (?, ?, ?, ?, ?)",
                (model, slo.latency_ms, slo.percentile, slo.quality_floor, slo.shed),
            )

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
