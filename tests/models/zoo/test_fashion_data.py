import gzip

import numpy as np
import pytest

from models.zoo import fashion_data
from models.zoo.fashion_data import MissingData


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, count in (("train", 55_010), ("t10k", 7)):
        images = random.integers(0, 256, (count, 2, 2), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_the_three_parts_do_not_overlap(folder):
    training, held_out, test = (
        part(folder) for part in (fashion_data.training, fashion_data.held_out, fashion_data.test)
    )
    assert (len(training), len(held_out), len(test)) == (55_000, 10, 7)
    assert training.images.shape == (55_000, 2, 2)
    assert held_out.labels.dtype == np.int64


def test_the_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv("SLUICE_FASHION_MNIST", str(folder))
    assert len(fashion_data.test()) == 7


def test_missing_files_are_explained(tmp_path):
    with pytest.raises(MissingData, match="dataset-fashion-mnist"):
        fashion_data.test(tmp_path)


def test_another_kind_of_file_is_an_error(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x0d\x01....")
    with pytest.raises(ValueError, match="not an IDX file"):
        fashion_data.test(folder)


def test_the_sample_is_there_and_small():
    sample = fashion_data.sample()
    assert sample.images.shape == (600, 28, 28)
    assert set(sample.labels.tolist()) == set(range(10))
    assert fashion_data.SAMPLE.stat().st_size <= 300_000
