"""The gated kernels as torch operators, `torch.ops.sluice.gated_conv2d` and `torch.ops.sluice.gated_matmul`.

An operator takes only tensors and numbers, so the weights come as the tensor that `packed_weights` gives, with the
layer's sizes beside it. Inference on the CPU: there is no gradient. Under torch.compile they are opaque calls with
known shapes.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models import kernels


def packed_weights(packed: kernels.PackedConvolution | kernels.PackedMatrix) -> Tensor:
    """A layer's packed weights, [blocks, taps, inputs, 64], as a tensor of its own."""
    return torch.tensor(packed.weights)


@torch.library.custom_op("sluice::gated_conv2d", mutates_args=(), device_types="cpu")
def gated_conv2d(
    x: Tensor,
    weights: Tensor,
    channels: list[int],
    kernel: int,
    stride: int,
    padding: int,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    saliency: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`models.kernels.gated_conv2d` of x [H, W, len(inputs)]; channels is the layer's [outputs, inputs]."""
    packed = kernels.PackedConvolution.from_weights(
        _aligned(weights), channels[0], channels[1], kernel, stride, padding
    )
    y = kernels.gated_conv2d(
        _array(x.contiguous()),
        packed,
        inputs=_optional(inputs),
        outputs=_optional(outputs),
        scale=_optional(scale),
        shift=_optional(shift),
        activation=activation,
        saliency=_optional(saliency),
        residual=None if residual is None else _array(residual.contiguous()),
    )
    return torch.from_numpy(y)


@gated_conv2d.register_fake
def _convolution_shape(
    x: Tensor,
    weights: Tensor,
    channels: list[int],
    kernel: int,
    stride: int,
    padding: int,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    saliency: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[:2])
    return x.new_empty((height, width, channels[0] if outputs is None else outputs.shape[0]))


@torch.library.custom_op("sluice::gated_matmul", mutates_args=(), device_types="cpu")
def gated_matmul(
    x: Tensor,
    weights: Tensor,
    channels: list[int],
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    saliency: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`models.kernels.gated_matmul` of x [M, len(inputs)]; channels is the layer's [outputs, inputs]."""
    n_outputs, n_inputs = channels
    packed = kernels.PackedMatrix.from_weights(_aligned(weights), n_outputs, n_inputs)
    y = kernels.gated_matmul(
        _array(x.contiguous()),
        packed,
        inputs=_optional(inputs),
        outputs=_optional(outputs),
        scale=_optional(scale),
        shift=_optional(shift),
        activation=activation,
        saliency=_optional(saliency),
        residual=None if residual is None else _array(residual.contiguous()),
    )
    return torch.from_numpy(y)


@gated_matmul.register_fake
def _matrix_shape(
    x: Tensor,
    weights: Tensor,
    channels: list[int],
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    saliency: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    return x.new_empty((x.shape[0], channels[0] if outputs is None else outputs.shape[0]))


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().numpy()


def _optional(tensor: Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else _array(tensor)


def _aligned(weights: Tensor) -> NDArray[Any]:
    """The kernels want weights on a 64-byte boundary: where torch allocates, but not where every view begins."""
    return _array(weights if weights.data_ptr() % 64 == 0 else weights.clone())
