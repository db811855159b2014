"""The torch operators: registered as torch wants them, and the same numbers as the functions below them."""

import numpy as np
import pytest
import torch

from models import kernels
from models.kernels import operators

RANDOM = np.random.default_rng(11)
WEIGHT = RANDOM.standard_normal((70, 9, 3, 3), dtype=np.float32)
X = RANDOM.standard_normal((6, 8, 4), dtype=np.float32)
OPTIONS = {
    "inputs": np.array([0, 3, 4, 8], np.int32),
    "outputs": np.array([1, 2, 40, 69], np.int32),
    "scale": RANDOM.standard_normal(70, dtype=np.float32),
    "shift": RANDOM.standard_normal(70, dtype=np.float32),
    "activation": "gelu",
    "saliency": RANDOM.random(4, dtype=np.float32),
}


def tensors(options):
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in options.items()
    }


def y_channels(options):
    return len(options["outputs"]) if "outputs" in options else 70


@pytest.mark.parametrize("options", [OPTIONS, {"inputs": OPTIONS["inputs"]}])
@pytest.mark.parametrize("stride", [2])
def test_convolution(stride, options):
    packed = kernels.pack_convolution(WEIGHT, stride, padding=1)
    options = options | {"residual": RANDOM.standard_normal((3, 4, y_channels(options)), dtype=np.float32)}
    arguments = (torch.from_numpy(X), operators.packed_weights(packed), [70, 9], 3, stride, 1)
    torch.library.opcheck(operators.gated_conv2d, arguments, tensors(options))
    y = torch.ops.sluice.gated_conv2d(*arguments, **tensors(options))
    np.testing.assert_array_equal(y.numpy(), kernels.gated_conv2d(X, packed, **options))


@pytest.mark.parametrize("options", [OPTIONS, {"inputs": OPTIONS["inputs"]}])
def test_matrix_product(options):
    packed = kernels.pack_matrix(WEIGHT[..., 0, 0].copy())
    options = options | {"residual": RANDOM.standard_normal((8, y_channels(options)), dtype=np.float32)}
    arguments = (torch.from_numpy(X[0]), operators.packed_weights(packed), [70, 9])
    torch.library.opcheck(operators.gated_matmul, arguments, tensors(options))
    y = torch.ops.sluice.gated_matmul(*arguments, **tensors(options))
    np.testing.assert_array_equal(y.numpy(), kernels.gated_matmul(X[0], packed, **options))


def test_a_view_of_the_weights_off_its_boundary_is_copied():
    packed = kernels.pack_matrix(WEIGHT[..., 0, 0].copy())
    weights = operators.packed_weights(packed)
    elsewhere = torch.empty(weights.numel() + 1)[1:].view_as(weights).copy_(weights)
    y = torch.ops.sluice.gated_matmul(torch.from_numpy(X[0]), elsewhere, [70, 9], torch.from_numpy(OPTIONS["inputs"]))
    np.testing.assert_array_equal(y.numpy(), kernels.gated_matmul(X[0], packed, inputs=OPTIONS["inputs"]))


def test_errors_name_the_argument():
    packed = kernels.pack_matrix(WEIGHT[..., 0, 0].copy())
    with pytest.raises(ValueError, match="x must have 9 channels"):
        torch.ops.sluice.gated_matmul(torch.from_numpy(X[0]), operators.packed_weights(packed), [70, 9])
