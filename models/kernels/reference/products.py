"""The packed layers, their convolution and their matrix product."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.kernels.reference.arrays import (
    Channels,
    Floats,
    channel_ids,
    checked_instruction_set,
    deliver,
    float_tensor,
    per_channel,
    shaped_tensor,
    tensor_of,
)
from models.kernels.reference.datatypes import checked_datatype, product, reduced_weight, to_bf16
from models.kernels.reference.norms import layer_norm
from models.kernels.reference.threads import Threads

BLOCK = 64

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


@dataclass(frozen=True, slots=True)
class PackedConvolution:
    """A convolution's weights; made by `pack_convolution`."""

    weight: Tensor  # [O, I, k, k]
    stride: int
    padding: int
    datatype: str = "fp32"
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
        weight = _from_blocks(tensor_of(weights), outputs, inputs, kernel * kernel)
        shaped = weight.reshape(outputs, inputs, kernel, kernel)
        return pack_convolution(shaped, stride, padding, instruction_set=instruction_set)

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
        return _to_blocks(self.weight.flatten(2), self.datatype)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return self.weight.nbytes

    def macs(self, height: int, width: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for an image of height x width with that many active channels."""
        rows, columns = (_extent(size, self.kernel, self.stride, self.padding) for size in (height, width))
        return rows * columns * self.kernel**2 * n_inputs * n_outputs


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix; made by `pack_matrix`."""

    weight: Tensor  # [N, K], the values that it stands for
    datatype: str = "fp32"
    instruction_set: str = "torch"

    @staticmethod
    def from_weights(weights: Floats, outputs: int, inputs: int, instruction_set: str | None = None) -> "PackedMatrix":
        """A layer from weights in the compiled core's layout."""
        weight = _from_blocks(tensor_of(weights), outputs, inputs, 1).squeeze(2)
        return pack_matrix(weight, instruction_set=instruction_set)

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
        return _to_blocks(self.weight.unsqueeze(2), self.datatype)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        return self.weight.nbytes

    def macs(self, rows: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for that many rows and active channels."""
        return rows * n_inputs * n_outputs


def pack_convolution(
    weight: Floats,
    stride: int = 1,
    padding: int = 0,
    datatype: str = "fp32",
    instruction_set: str | None = None,
) -> PackedConvolution:
    """Takes weight [O, I, k, k]; k is 1 or 3, stride 1 or 2, padding 0 or 1; fp32 or bf16."""
    kept = float_tensor(weight, "weight", 4)
    if kept.shape[2] not in (1, 3) or kept.shape[2] != kept.shape[3]:
        raise ValueError("weight must be a 1x1 or a 3x3 kernel")
    if 0 in kept.shape:
        raise ValueError("weight must have at least one output and one input")
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, not {stride}")
    if padding not in (0, 1):
        raise ValueError(f"padding must be 0 or 1, not {padding}")
    if checked_datatype(datatype) == "int8":
        raise ValueError("datatype of a convolution must be fp32 or bf16, not 'int8'")
    chosen = checked_instruction_set(instruction_set)
    return PackedConvolution(reduced_weight(kept, datatype), stride, padding, datatype, chosen)


def pack_matrix(
    weight: Floats, datatype: str = "fp32", instruction_set: str | None = None, split: bool = False
) -> PackedMatrix:
    """Takes weight [N, K], as torch's linear layers have it; see `models.kernels.reference.datatypes`. There is no tile
    unit here to `split` weights for."""
    kept = float_tensor(weight, "weight", 2)
    if 0 in kept.shape:
        raise ValueError("weight must have at least one output and one input")
    kept = reduced_weight(kept, checked_datatype(datatype))
    return PackedMatrix(kept, datatype, checked_instruction_set(instruction_set))


def gated_conv2d(
    x: Floats,
    packed: PackedConvolution,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    residual: Floats | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> NDArray[Any]:
    """The convolution of one image [H, W, len(inputs)] over active channels, [H', W', len(outputs)].

    y[h, w, j] = residual[h, w, j] + saliency[j] · act(scale[o] · Σ x[…, i] · W[o, i] + shift[o]) with o = outputs[j],
    summed over the taps and the active inputs.
    """
    image = float_tensor(x, "x", 3, packed.weight.dtype)
    if packed.datatype == "bf16":
        image = to_bf16(image)
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
    return deliver(epilogue(sums, packed.outputs, kept, scale, shift, activation, saliency, residual), out)


def gated_matmul(
    x: Floats,
    packed: PackedMatrix,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    residual: Floats | None = None,
    norm: tuple[Floats, Floats, float] | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> NDArray[Any]:
    """The matrix product over active channels: [M, len(inputs)] to [M, len(outputs)]; everything else as in
    `gated_conv2d`. Rows go through the norm first."""
    rows = float_tensor(x, "x", 2, packed.weight.dtype)
    weight, kept = _active(packed.weight, inputs, outputs, rows.shape[-1])
    if norm is not None:
        rows = tensor_of(layer_norm(x, *norm))
    sums = product(rows, weight, packed.datatype)
    return deliver(epilogue(sums, packed.outputs, kept, scale, shift, activation, saliency, residual), out)


def feed_forward(
    x: Floats,
    up: PackedMatrix,
    down: PackedMatrix,
    *,
    neurons: Channels | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    bias: Floats | None = None,
    residual: Floats | None = None,
    norm: tuple[Floats, Floats, float] | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> NDArray[Any]:
    """Both products of a feed-forward block over its active neurons, [M, inputs of up] to [M, outputs of down]:
    residual + down(act(up(x) + shift)) + bias. Rows go through the norm first."""
    if down.inputs != up.outputs:
        raise ValueError(f"down must have {up.outputs} inputs, the neurons of up, not {down.inputs}")
    dtype = up.weight.dtype
    channels = float_tensor(x, "x", 2, dtype).shape[-1]
    if channels != up.inputs:
        raise ValueError(f"x must have {up.inputs} channels, not {channels}")
    channel_ids(neurons, "neurons", up.outputs)
    if shift is not None:
        per_channel(shift, "shift", up.outputs, "neurons", dtype)
    if bias is not None:
        per_channel(bias, "bias", down.outputs, "outputs", dtype)
    made = gated_matmul(x, up, outputs=neurons, shift=shift, activation=activation, norm=norm)
    return gated_matmul(made, down, inputs=neurons, shift=bias, residual=residual, out=out)


def _active(weight: Tensor, inputs: Channels | None, outputs: Channels | None, channels: int) -> tuple[Tensor, Tensor]:
    """The active part of a weight, and the ids of the active outputs."""
    read = channel_ids(inputs, "inputs", weight.shape[1])
    kept = channel_ids(outputs, "outputs", weight.shape[0])
    if channels != read.numel():
        raise ValueError(f"x must have {read.numel()} channels, one for each active input, not {channels}")
    return weight[kept][:, read], kept


def epilogue(
    sums: Tensor,
    outputs: int,
    kept: Tensor,
    scale: Floats | None,
    shift: Floats | None,
    activation: str,
    saliency: Floats | None,
    residual: Floats | None,
    what: str = "outputs",
) -> Tensor:
    """residual + saliency · act(scale · sums + shift) of the outputs that were kept."""
    if scale is not None:
        sums = sums * per_channel(scale, "scale", outputs, what, sums.dtype)[kept]
    if shift is not None:
        sums = sums + per_channel(shift, "shift", outputs, what, sums.dtype)[kept]
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be none, relu, relu6, gelu or silu, not '{activation}'")
    sums = ACTIVATIONS[activation](sums)
    if saliency is not None:
        sums = sums * per_channel(saliency, "saliency", kept.numel(), f"active {what}", sums.dtype)
    if residual is not None:
        sums = sums + shaped_tensor(residual, "residual", sums.shape, sums.dtype)
    return sums


def _extent(size: int, kernel: int, stride: int, padding: int) -> int:
    if size + 2 * padding < kernel:
        raise ValueError("height and width must be at least as large as the kernel")
    return (size + 2 * padding - kernel) // stride + 1


def _to_blocks(weight: Tensor, datatype: str) -> NDArray[Any]:
    """[O, I, taps] to [blocks, taps, I, 64]."""
    if datatype != "fp32":
        raise ValueError("only the weights of an fp32 layer are an array")
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
