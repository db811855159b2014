"""The depthwise convolution."""

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
)
from models.kernels.reference.products import epilogue


@dataclass(frozen=True, slots=True)
class PackedDepthwise:
    """A depthwise convolution's weights; made by `pack_depthwise`."""

    weight: Tensor  # [C, k, k]
    stride: int
    padding: tuple[int, int]
    instruction_set: str = "torch"

    @property
    def channels(self) -> int:
        """Channels of the layer."""
        return self.weight.shape[0]

    @property
    def kernel(self) -> int:
        """Taps along each side."""
        return self.weight.shape[1]

    def extents(self, height: int, width: int) -> tuple[int, int]:
        """Positions of the result along each side."""
        before, after = self.padding
        if min(height, width) + before + after < self.kernel or min(height, width) == 0:
            raise ValueError("x must be at least as large as the kernel, with at least one position")
        rows, columns = ((size + before + after - self.kernel) // self.stride + 1 for size in (height, width))
        return rows, columns

    def macs(self, height: int, width: int, n_channels: int) -> int:
        """Multiply-accumulates for an image of height x width with that many active channels."""
        rows, columns = self.extents(height, width)
        return rows * columns * self.kernel**2 * n_channels


def pack_depthwise(
    weight: Floats, stride: int = 1, padding: tuple[int, int] = (0, 0), instruction_set: str | None = None
) -> PackedDepthwise:
    """Takes weight [C, k, k]; k is 3 or 5, stride 1 or 2; padding is (above and left, below and right)."""
    kept = float_tensor(weight, "weight", 3)
    if kept.shape[1] not in (3, 5) or kept.shape[1] != kept.shape[2]:
        raise ValueError("weight must be 3x3 or 5x5 kernels")
    if kept.shape[0] == 0:
        raise ValueError("weight must have at least one channel")
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, not {stride}")
    if max(padding) >= kept.shape[1]:
        raise ValueError("padding must be less than the kernel")
    return PackedDepthwise(kept.clone(), stride, padding, checked_instruction_set(instruction_set))


def depthwise_conv2d(
    x: Floats,
    packed: PackedDepthwise,
    *,
    channels: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    out: Floats | None = None,
) -> NDArray[Any]:
    """The depthwise convolution of one image [H, W, n] over its active channels, [H', W', n]: each with its own
    kernel, and the epilogue of `gated_conv2d` without the residual."""
    image = float_tensor(x, "x", 3, packed.weight.dtype)
    active = channel_ids(channels, "channels", packed.channels)
    count = active.numel()
    if image.shape[2] != count:
        raise ValueError(f"x must have {count} channels, one for each active channel, not {image.shape[2]}")
    extents = packed.extents(image.shape[0], image.shape[1])
    sums = image.new_zeros((*extents, 0))
    if count:
        bordered = functional.pad(image.permute(2, 0, 1)[None], (*packed.padding, *packed.padding))
        sums = functional.conv2d(bordered, packed.weight[active][:, None], stride=packed.stride, groups=count)
        sums = sums[0].permute(1, 2, 0)
    return deliver(epilogue(sums, packed.channels, active, scale, shift, activation, saliency, None, "channels"), out)
