"""The kernels in plain torch, with the signatures of the compiled core: what the core is tested against, and what
serves where no compiler was.

It takes numpy arrays or CPU tensors and returns numpy arrays. It computes in the type of the weights, so float64
weights give an exact yardstick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Floats: TypeAlias = NDArray[Any] | Tensor
Channels: TypeAlias = NDArray[np.int32] | Tensor

BLOCK = 64


@dataclass(frozen=True, slots=True)
class PackedConvolution:
    """A convolution's weights; made by `pack_convolution`."""

    weight: Tensor  # [O, I, k, k]
    stride: int
    padding: int
    instruction_set: str = "torch"

    @staticmethod
    def from_weights(
        weights: Floats,
        outputs: int,
        inputs: int,
        kernel: int,
        stride: int,
        padding: int,
        instruction_set: str | None = None,
    ) -> "PackedConvolution":
        """A layer from weights in the compiled core's layout."""
        weight = _from_blocks(_tensor(weights), outputs, inputs, kernel * kernel)
        return pack_convolution(weight.reshape(outputs, inputs, kernel, kernel), stride, padding, instruction_set)

    @property
    def outputs(self) -> int:
        """Output channels of the layer."""
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels of the layer."""
        return self.weight.shape[1]

    @property
    def kernel(self) -> int:
        """Taps along each side."""
        return self.weight.shape[2]

    @property
    def weights(self) -> NDArray[Any]:
        """The weights in the compiled core's layout, [blocks, kernel², inputs, 64]."""
        return _to_blocks(self.weight.flatten(2))

    def macs(self, height: int, width: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for an image of height x width with that many active channels."""
        rows, columns = (_extent(size, self.kernel, self.stride, self.padding) for size in (height, width))
        return rows * columns * self.kernel**2 * n_inputs * n_outputs


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix; made by `pack_matrix`."""

    weight: Tensor  # [N, K]
    instruction_set: str = "torch"

    @staticmethod
    def from_weights(weights: Floats, outputs: int, inputs: int, instruction_set: str | None = None) -> "PackedMatrix":
        """A layer from weights in the compiled core's layout."""
        return pack_matrix(_from_blocks(_tensor(weights), outputs, inputs, 1).squeeze(2), instruction_set)

    @property
    def outputs(self) -> int:
        """Columns of the result."""
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of x."""
        return self.weight.shape[1]

    @property
    def weights(self) -> NDArray[Any]:
        """The weights in the compiled core's layout, [blocks, 1, inputs, 64]."""
        return _to_blocks(self.weight.unsqueeze(2))

    def macs(self, rows: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for that many rows and active channels."""
        return rows * n_inputs * n_outputs


def instruction_sets() -> tuple[str, ...]:
    """The reference has one: torch's own."""
    return ("torch",)


def pack_convolution(
    weight: Floats, stride: int = 1, padding: int = 0, instruction_set: str | None = None
) -> PackedConvolution:
    """Takes weight [O, I, k, k]; k is 1 or 3, stride 1 or 2, padding 0 or 1."""
    kept = _float_tensor(weight, "weight", 4)
    if kept.shape[2] not in (1, 3) or kept.shape[2] != kept.shape[3]:
        raise ValueError("weight must be a 1x1 or a 3x3 kernel")
    if 0 in kept.shape:
        raise ValueError("weight must have at least one output and one input")
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, not {stride}")
    if padding not in (0, 1):
        raise ValueError(f"padding must be 0 or 1, not {padding}")
    return PackedConvolution(kept.clone(), stride, padding, _instruction_set(instruction_set))


def pack_matrix(weight: Floats, instruction_set: str | None = None) -> PackedMatrix:
    """Takes weight [N, K], as torch's linear layers have it."""
    kept = _float_tensor(weight, "weight", 2)
    if 0 in kept.shape:
        raise ValueError("weight must have at least one output and one input")
    return PackedMatrix(kept.clone(), _instruction_set(instruction_set))


def gated_conv2d(
    x: Floats,
    packed: PackedConvolution,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    relu: bool = False,
    saliency: Floats | None = None,
    out: Floats | None = None,
) -> NDArray[Any]:
    """The convolution of one image [H, W, len(inputs)] over active channels, [H', W', len(outputs)].

    y[h, w, j] = saliency[j] · act(scale[o] · Σ x[…, i] · W[o, i] + shift[o]) with o = outputs[j], summed over the
    taps and the active inputs.
    """
    image = _float_tensor(x, "x", 3, packed.weight.dtype)
    weight, kept = _active(packed.weight, inputs, outputs, image.shape[-1])
    if min(image.shape[:2]) + 2 * packed.padding < packed.kernel:
        raise ValueError("x must be at least as large as the kernel")
    if 0 in image.shape[:2]:
        raise ValueError("x must have at least one position")
    if kept.numel() and image.shape[-1]:
        sums = functional.conv2d(image.permute(2, 0, 1)[None], weight, stride=packed.stride, padding=packed.padding)
        sums = sums[0].permute(1, 2, 0)
    else:
        extents = [_extent(size, packed.kernel, packed.stride, packed.padding) for size in image.shape[:2]]
        sums = image.new_zeros((*extents, kept.numel()))
    return _deliver(_epilogue(sums, packed.outputs, kept, scale, shift, relu, saliency), out)


def gated_matmul(
    x: Floats,
    packed: PackedMatrix,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    relu: bool = False,
    saliency: Floats | None = None,
    out: Floats | None = None,
) -> NDArray[Any]:
    """The matrix product over active channels: [M, len(inputs)] to [M, len(outputs)]; everything else as in
    `gated_conv2d`."""
    rows = _float_tensor(x, "x", 2, packed.weight.dtype)
    weight, kept = _active(packed.weight, inputs, outputs, rows.shape[-1])
    return _deliver(_epilogue(rows @ weight.T, packed.outputs, kept, scale, shift, relu, saliency), out)


def max_pool2x2(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> NDArray[Any]:
    """The maximum of each 2x2 square of x [H, W, n], [H // 2, W // 2, n]; an odd last row or column is left out."""
    _instruction_set(instruction_set)
    image = _float_tensor(x, "x", 3)
    if min(image.shape[:2]) < 2:
        raise ValueError("x must be at least 2x2")
    height, width, channels = image.shape
    squares = image[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, channels)
    return _deliver(squares.amax(dim=(1, 3)), out)


def channel_means(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> NDArray[Any]:
    """The mean over the positions of x [H, W, n], [n]."""
    _instruction_set(instruction_set)
    image = _float_tensor(x, "x", 3)
    if 0 in image.shape[:2]:
        raise ValueError("x must have at least one position")
    return _deliver(image.mean(dim=(0, 1)), out)


def squeeze_channels(
    x: Floats,
    channels: int,
    evidence: Floats,
    *,
    inputs: Channels | None = None,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """The features of a gate, [channels + evidence], of x [H, W, n].

    First the means of its channels over the positions, divided by their own mean over all `channels`, zero for the
    inactive ones; of a single channel, an image, the mean of its magnitude. Then the evidence.
    """
    _instruction_set(instruction_set)
    image = _float_tensor(x, "x", 3)
    if 0 in image.shape[:2]:
        raise ValueError("x must have at least one position")
    if channels < 1:
        raise ValueError("channels must be at least 1")
    read = _channel_ids(inputs, "inputs", channels)
    if image.shape[2] != read.numel():
        raise ValueError(f"x must have {read.numel()} channels, one for each active input, not {image.shape[2]}")
    seen = _float_tensor(evidence, "evidence", 1, image.dtype)
    features = torch.zeros(channels, dtype=image.dtype)
    if channels == 1:
        if not read.numel():
            raise ValueError("x must have its only channel")
        features[0] = image.abs().mean()
    else:
        means = image.mean(dim=(0, 1))
        features[read] = means * (channels / max(float(means.sum()), 1e-6 * channels))
    return torch.cat((features, seen)).numpy()


def gate_channels(
    features: Floats, projection: Floats, bias: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The active channels and their multipliers (feature boosting and suppression, Gao et al. 2019).

    a = features · projection + bias with a projection [features, channels], r = relu(a), m = r / mean(r). Active are
    the channels with a > threshold and a > 0; if none is, the one with the largest a is kept, and its multiplier is 1
    when all r are 0.
    """
    _instruction_set(instruction_set)
    matrix = _float_tensor(projection, "projection", 2)
    vector = _float_tensor(features, "features", 1, matrix.dtype)
    if matrix.shape[1] == 0:
        raise ValueError("projection must have at least one channel")
    if matrix.shape[0] != vector.shape[0]:
        raise ValueError(f"projection must have {vector.shape[0]} rows, one for each feature, not {matrix.shape[0]}")
    offsets = _per_channel(bias, "bias", matrix.shape[1], "channels", matrix.dtype)
    if threshold != threshold:
        raise ValueError("threshold must be a number")
    raw = vector @ matrix + offsets
    rectified = raw.relu()
    mean = rectified.mean()
    active = torch.nonzero((raw > threshold) & (raw > 0)).flatten()
    if not active.numel():
        active = raw.argmax().reshape(1)
    multipliers = rectified[active] / mean if mean > 0 else torch.ones(len(active), dtype=raw.dtype)
    return active.to(torch.int32).numpy(), multipliers.numpy()


def _active(weight: Tensor, inputs: Channels | None, outputs: Channels | None, channels: int) -> tuple[Tensor, Tensor]:
    """The active part of a weight, and the ids of the active outputs."""
    read = _channel_ids(inputs, "inputs", weight.shape[1])
    kept = _channel_ids(outputs, "outputs", weight.shape[0])
    if channels != read.numel():
        raise ValueError(f"x must have {read.numel()} channels, one for each active input, not {channels}")
    return weight[kept][:, read], kept


def _epilogue(
    sums: Tensor,
    outputs: int,
    kept: Tensor,
    scale: Floats | None,
    shift: Floats | None,
    relu: bool,
    saliency: Floats | None,
) -> Tensor:
    if scale is not None:
        sums = sums * _per_channel(scale, "scale", outputs, "outputs", sums.dtype)[kept]
    if shift is not None:
        sums = sums + _per_channel(shift, "shift", outputs, "outputs", sums.dtype)[kept]
    if relu:
        sums = sums.relu()
    if saliency is not None:
        sums = sums * _per_channel(saliency, "saliency", kept.numel(), "active outputs", sums.dtype)
    return sums


def _deliver(result: Tensor, out: Floats | None) -> NDArray[Any]:
    array = result.contiguous().numpy()
    if out is None:
        return array
    if tuple(out.shape) != array.shape:
        raise ValueError(f"out must have the shape {list(array.shape)}, not {list(out.shape)}")
    target = out.numpy() if isinstance(out, Tensor) else out
    if target.dtype != array.dtype:
        raise TypeError(f"out must be {array.dtype}, not {target.dtype}")
    if not target.flags.writeable:
        raise ValueError("out must be writable")
    target[...] = array
    return target


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


def _float_tensor(value: Any, name: str, rank: int, dtype: torch.dtype | None = None) -> Tensor:
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a float32 array, not {type(value).__name__}")
    tensor = _tensor(value)
    if tensor.dtype not in ((torch.float32, torch.float64) if dtype is None else (dtype,)):
        raise TypeError(f"{name} must be float32, not {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, not {tensor.ndim}")
    return tensor


def _per_channel(value: Any, name: str, length: int, what: str, dtype: torch.dtype) -> Tensor:
    tensor = _float_tensor(value, name, 1, dtype)
    if tensor.shape[0] != length:
        raise ValueError(f"{name} must have one value for each of the {length} {what}, not {tensor.shape[0]}")
    return tensor


def _channel_ids(value: Any, name: str, limit: int) -> Tensor:
    if value is None:
        return torch.arange(limit)
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be an int32 array, not {type(value).__name__}")
    ids = _tensor(value)
    if ids.dtype != torch.int32:
        raise TypeError(f"{name} must be int32, not {str(ids.dtype).removeprefix('torch.')}")
    if ids.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, not {ids.ndim}")
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < limit):
        raise ValueError(f"{name} must hold channels from 0 to {limit - 1}")
    if bool((ids.diff() <= 0).any()):
        raise ValueError(f"{name} must be strictly ascending")
    return ids.long()


def _instruction_set(name: str | None) -> str:
    if name not in (None, *instruction_sets()):
        raise ValueError(f"instruction_set must be one that this processor has (torch), not '{name}'")
    return "torch"


def _extent(size: int, kernel: int, stride: int, padding: int) -> int:
    if size + 2 * padding < kernel:
        raise ValueError("height and width must be at least as large as the kernel")
    return (size + 2 * padding - kernel) // stride + 1


def _to_blocks(weight: Tensor) -> NDArray[Any]:
    """[O, I, taps] to [blocks, taps, I, 64]."""
    outputs, inputs, taps = weight.shape
    blocks = -(-outputs // BLOCK)
    padded = functional.pad(weight, (0, 0, 0, 0, 0, blocks * BLOCK - outputs))
    return padded.reshape(blocks, BLOCK, inputs, taps).permute(0, 3, 2, 1).contiguous().numpy()


def _from_blocks(weights: Tensor, outputs: int, inputs: int, taps: int) -> Tensor:
    """[blocks, taps, I, 64] to [O, I, taps]."""
    expected: Sequence[int] = (-(-outputs // BLOCK), taps, inputs, BLOCK)
    if tuple(weights.shape) != tuple(expected):
        raise ValueError("weights must have the shape [blocks, taps, inputs, 64] of this layer")
    return weights.permute(0, 3, 2, 1).reshape(-1, inputs, taps)[:outputs]
