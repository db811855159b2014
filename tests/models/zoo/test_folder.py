import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.zoo.folder import Tensors, read_json


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
