import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from models.zoo.llama_files import Checkpoint


def sharded(folder, places):
    for file in set(places.values()):
        save_file(
            {name: np.full((2, 2), len(name), np.float32) for name in places if places[name] == file}, folder / file
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return Checkpoint(folder)


def test_a_checkpoint_in_parts(tmp_path):
    checkpoint = sharded(tmp_path, {"a": "1.safetensors", "bb": "2.safetensors", "ccc": "1.safetensors"})
    assert set(checkpoint) == {"a", "bb", "ccc"}
    assert checkpoint["bb"].tolist() == [[2, 2], [2, 2]]
    assert "d" not in checkpoint
    assert len(checkpoint.digest) == 64
    with pytest.raises(ValueError, match="no tensor 'd'"):
        checkpoint["d"]


def test_an_index_names_files_of_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(ValueError, match="weight_map must name files of the folder"):
        Checkpoint(tmp_path)


def test_rows_of_a_matrix_whatever_its_type(tmp_path):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_file({"f32": table, "f16": table.astype(np.float16), "row": table[0]}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for name in ("f32", "f16"):
        assert_array_equal(checkpoint.rows(name, [2, 0, 2]), table[[2, 0, 2]])
    with pytest.raises(ValueError, match="must be a matrix"):
        checkpoint.rows("row", [0])


def test_what_was_given_back_is_read_again(tmp_path):
    checkpoint = sharded(tmp_path, {"a": "1.safetensors", "bb": "2.safetensors"})
    digest, values = checkpoint.digest, checkpoint["bb"]
    checkpoint.release()
    assert values.tolist() == checkpoint["bb"].tolist() == [[2, 2], [2, 2]]
    assert checkpoint.digest == digest
