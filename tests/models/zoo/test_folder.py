import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.zoo.folder import Tensors, read_json, weights_path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"bert.a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5], np.float16)}, path)
    return path


def test_tensors_are_float32_whatever_the_file_has(file):
    tensors = Tensors(file, prefix="bert.")
    assert set(tensors) == {"a", "b"}
    assert len(tensors) == 2
    assert np.array_equal(tensors["a"], [[0, 1, 2], [3, 4, 5]])
    assert tensors["b"].dtype == np.float32
    assert tensors["b"][0] == 1.5
    assert tensors.digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_bf16_is_read_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(5).bfloat16()
    save_torch({"x": values}, tmp_path / "w.safetensors")
    assert np.array_equal(Tensors(tmp_path / "w.safetensors")["x"], values.float().numpy())


def shifted(path, by):
    """The same tensors, which begin so many bytes further on: older writers did not care where."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes((start - 8 + by).to_bytes(8, "little") + whole[8:start] + b" " * by + whole[start:])


@pytest.mark.parametrize("by", [1, 2, 3])
def test_tensors_may_lie_between_words(file, by):
    plain = {name: tensor.copy() for name, tensor in Tensors(file).items()}
    assert Tensors(file)["bert.a"].base is not None
    shifted(file, by)
    tensors = Tensors(file)
    for name, tensor in plain.items():
        assert tensors[name].flags.aligned
        assert np.array_equal(tensors[name], tensor)
    assert np.array_equal(tensors.rows("bert.a", [1]), [[3, 4, 5]])


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": {}, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]},
        None,
    ],
)
def test_a_header_that_does_not_fit_itself_is_an_error(tmp_path, entry):
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=r"w\.safetensors is no safetensors file"):
        Tensors(tmp_path / "w.safetensors")


def test_what_a_header_lacks_is_named(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=r"w\.safetensors .*tensor 'x' lacks data_offsets"):
        Tensors(tmp_path / "w.safetensors")


def test_a_tensor_of_another_shape_is_named(file):
    assert Tensors(file).shaped("bert.a", (2, 3), "rows, columns").shape == (2, 3)
    with pytest.raises(ValueError, match=r"tensor 'bert\.a' is \[2, 3\]; config\.json says \[3, 2\] \(columns, rows\)"):
        Tensors(file).shaped("bert.a", (3, 2), "columns, rows")


def test_a_file_that_was_not_fetched_says_so(tmp_path):
    (tmp_path / "w.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        Tensors(tmp_path / "w.safetensors")


def test_a_missing_tensor_is_named(file):
    with pytest.raises(ValueError, match="no tensor 'c'"):
        Tensors(file)["c"]


def test_another_kind_of_tensor_or_file_is_an_error(tmp_path):
    save_file({"x": np.zeros(3, np.int32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="type I32"):
        Tensors(tmp_path / "w.safetensors")["x"]
    (tmp_path / "text").write_bytes(b"\x05\0\0\0\0\0\0\0hello, world")
    with pytest.raises(ValueError, match="no safetensors"):
        Tensors(tmp_path / "text")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        read_json(tmp_path / "list.json")


def test_several_files_are_found_by_their_index(tmp_path, file):
    save_file({"c": np.ones(2, np.float32)}, tmp_path / "other.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    weight_map = {"bert.a": "model.safetensors", "b": "model.safetensors", "c": "other.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    tensors = Tensors(index, prefix="bert.")
    assert set(tensors) == {"a", "b", "c"}
    assert np.array_equal(tensors["c"], [1, 1])
    both = file.read_bytes() + (tmp_path / "other.safetensors").read_bytes()
    assert tensors.digest == hashlib.sha256(both).hexdigest()
    assert weights_path(tmp_path) == file
    (tmp_path / "other.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"other\.safetensors is missing; .*weight_map"):
        Tensors(index)
    index.write_text("{}")
    with pytest.raises(ValueError, match="has no weight_map"):
        Tensors(index)
    for name in (5, None, "", "../model.safetensors"):
        index.write_text(json.dumps({"weight_map": {"bert.a": "model.safetensors", "b": name}}))
        with pytest.raises(ValueError, match=r"index\.json: weight_map must name files of the folder"):
            Tensors(index)


def test_a_torn_file_is_an_error(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=rf"is torn: it has {len(whole) - 5} bytes of {len(whole)}"):
        Tensors(file)
    for length in (0, 5, 30):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no safetensors"):
            Tensors(file)


def test_a_folder_without_weights_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json$"):
        weights_path(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is not read"):
        weights_path(tmp_path)
