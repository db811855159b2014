import sqlite3

import pytest

from service.control.generation_slo import GenerationSLO
from service.control.slo import SLO
from service.engine.slo_store import SloStoreError, SqliteSloStore


def test_an_slo_is_there_after_a_restart(tmp_path):
    path = tmp_path / "new folder" / "slo.db"
    slo = SLO(12.5, 99.9, 0.975, shed=False)
    store = SqliteSloStore(path)
    assert store.get("fashion") is None
    store.put("fashion", SLO(1))
    store.put("fashion", slo)
    store.put("other", SLO(7))
    assert SqliteSloStore(path).get("fashion") == slo


def test_a_language_models_slo_takes_the_place_of_one_of_the_other_kind(tmp_path):
    path = tmp_path / "slo.db"
    slo = GenerationSLO(800.5, 60, 95, 0.9, shed=False)
    store = SqliteSloStore(path)
    store.put("chat", SLO(1))
    store.put("chat", slo)
    assert SqliteSloStore(path).get("chat") == slo
    store.put("chat", SLO(2))
    assert store.get("chat") == SLO(2)


def test_a_file_of_before_there_were_language_models(tmp_path):
    path = tmp_path / "slo.db"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE slo (model TEXT PRIMARY KEY, latency_ms REAL NOT NULL, percentile REAL NOT NULL,"
            " quality_floor REAL NOT NULL, shed INTEGER NOT NULL)"
        )
        old.execute("INSERT INTO slo VALUES ('fashion', 12.5, 99.0, 0.95, 1)")
    store = SqliteSloStore(path)
    assert store.get("fashion") == SLO(12.5)
    store.put("chat", GenerationSLO(800, 60))
    assert store.get("chat") == GenerationSLO(800, 60)


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "slo.db"
    path.write_bytes(b"not a database, but long enough to have a header " * 100)
    with pytest.raises(SloStoreError, match=r"slo\.db: .*not a database.*move the file away"):
        SqliteSloStore(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SloStoreError, match=r"slo\.db"):
        SqliteSloStore(tmp_path / "file" / "slo.db")


def test_a_locked_database_is_an_error_and_keeps_what_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr("service.engine.slo_store._LOCKED_SECONDS", 0.01)
    path = tmp_path / "slo.db"
    store = SqliteSloStore(path)
    store.put("fashion", SLO(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SloStoreError, match="locked"):
        store.put("fashion", SLO(2))
    other.execute("ROLLBACK")
    other.close()
    assert store.get("fashion") == SLO(1)


def test_a_row_that_cannot_be_an_slo_is_not_believed(tmp_path):
    path = tmp_path / "slo.db"
    store = SqliteSloStore(path)
    store.put("fashion", SLO(1))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE slo SET latency_ms = -5")
    connection.close()
    with pytest.raises(SloStoreError, match=r"'fashion'.*latency_ms"):
        store.get("fashion")
