import numpy as np
import pytest
from safetensors.numpy import save_file

from models.zoo.fashion_weights import Calibration, load_calibration, load_weights, save_calibration


def test_a_calibration_survives_its_file(tmp_path):
    random = np.random.default_rng(0)
    tables = Calibration(
        np.linspace(1, 0.3, 4, dtype=np.float32),
        random.random((4, 2), np.float32),
        (random.random((4, 3), np.float32), random.random((4, 5), np.float32)),
        (random.random((4, 3), np.float32), random.random((4, 5), np.float32)),
    )
    save_calibration(tables, tmp_path / "c.safetensors")
    loaded = load_calibration(tmp_path / "c.safetensors")
    assert loaded.levels.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for name in ("kept_shares", "thresholds"):
        assert np.array_equal(getattr(loaded, name), getattr(tables, name))
    for a, b in zip(loaded.means + loaded.variances, tables.means + tables.variances, strict=True):
        assert np.array_equal(a, b)


def test_bf16_is_read_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from models.gating.network import GatedNetwork
    from models.zoo.fashion_shape import SHAPE
    from models.zoo.fashion_training import gated_tensors, write

    network = GatedNetwork(SHAPE)
    write(gated_tensors(network), tmp_path / "w.safetensors")
    weights = load_weights(tmp_path / "w.safetensors")
    wanted = network.layers[2].convolution.weight.detach().to(torch.bfloat16).float().numpy()
    assert np.array_equal(weights.layers[2].weight, wanted)
    assert len(weights.digest) == 64


def test_a_file_of_something_else_names_what_it_lacks(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="has no tensor"):
        load_weights(tmp_path / "w.safetensors")


def test_an_unexpected_type_is_an_error(tmp_path):
    save_file({"x": np.zeros(3, np.int32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="type I32"):
        load_weights(tmp_path / "w.safetensors")
