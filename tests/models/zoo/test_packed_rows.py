"""Packed weights that are kept in a file."""

import logging

import numpy as np
import pytest

from models import kernels
from models.zoo import packed_rows
from models.zoo.packed_rows import PackedRows

DIGEST = "1f" * 32


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(packed_rows, "LEAST_BYTES", 0)


def weight(seed):
    return np.random.default_rng(seed).standard_normal((70, 33)).astype(np.float32)


def unread():
    raise AssertionError("the file has it")


def kept(path, datatype="bf16"):
    """What a first start packs."""
    rows = PackedRows(path, DIGEST, datatype)
    made = {by: rows.pack(by, lambda: weight(3), by, weight(4)[:, 0].copy()) for by in ("inputs", "outputs")}
    rows.pack_coarse("coarse", lambda: kernels.pack_coarse(weight(3)))
    rows.keep()
    return made


@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
def test_the_next_start_reads_no_weights(tmp_path, datatype):
    path, x = tmp_path / "new" / "rows.packed", weight(5)[:2]
    made = kept(path, datatype)
    rows = PackedRows(path, DIGEST, datatype)
    for by, matrix in made.items():
        again = rows.pack(by, unread, by, weight(4)[:, 0].copy())
        rows.release()
        assert (again.by, again.datatype, again.nbytes) == (by, datatype, matrix.nbytes)
        assert np.array_equal(kernels.row_matmul(x, again), kernels.row_matmul(x, matrix))
        assert np.array_equal(again.norms, matrix.norms)
    assert np.array_equal(rows.pack_coarse("coarse", unread).weight, kernels.pack_coarse(weight(3)).weight)
    written = path.stat().st_mtime_ns
    rows.keep()
    assert path.stat().st_mtime_ns == written
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[:-64],
        lambda content: content + b"more",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content.replace(kernels.ROW_LAYOUT.encode(), b"x" * len(kernels.ROW_LAYOUT)),
        lambda content: content.replace(DIGEST.encode(), b"e" * len(DIGEST)),
        lambda content: content.replace(b'"words": [', b'"words": [9'),
        lambda content: content.replace(b'"outputs": 70', b'"outputs": 71'),
        lambda content: content.replace(b'"inputs": {', b'"others": {'),
    ],
)
def test_a_file_that_is_torn_or_of_something_else_is_made_anew(tmp_path, spoil):
    path = tmp_path / "rows.packed"
    made = kept(path)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    again = kept(path)
    assert np.array_equal(again["inputs"].words, made["inputs"].words)
    assert path.read_bytes() == whole


def test_a_small_model_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_rows, "LEAST_BYTES", 1 << 20)
    kept(tmp_path / "rows.packed")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_next_start_packs_again(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert set(kept(tmp_path / "file" / "rows.packed")) == {"inputs", "outputs"}
    assert "the packed weights are not kept" in caplog.text
