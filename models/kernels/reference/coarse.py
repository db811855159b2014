"""Coarse weights for a few rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.arrays import Floats, deliver, float_tensor, per_channel

SHARE_BESIDE_COARSE = 0.25
UNIT, STEPS = 32, 255
MAGNITUDES = torch.tensor([0.051025390625, 0.154296875, 0.259765625, 0.373046875, 0.49609375, 0.6328125, 0.796875, 1.0])
TRIED = (1.0, 0.94, 0.88, 0.82)


@dataclass(frozen=True, slots=True)
class CoarseMatrix:
    """Weights of 4 bits; see `pack_coarse`."""

    matrix: Tensor
    output_scales: Tensor
    input_steps: Tensor

    @property
    def outputs(self) -> int:
        return self.matrix.shape[0]

    @property
    def inputs(self) -> int:
        return self.matrix.shape[1]

    @property
    def nbytes(self) -> int:
        return self.matrix.nbytes

    @property
    def words(self) -> NDArray[np.int32]:
        """The rounded weights in float32."""
        return deliver(self.matrix.float(), None).ravel().view(np.int32)

    @property
    def scales(self) -> NDArray[Any]:
        return deliver(self.output_scales, None)

    @property
    def steps(self) -> NDArray[Any]:
        return deliver(self.input_steps, None)

    @property
    def weight(self) -> NDArray[Any]:
        return deliver(self.matrix, None)


def pack_coarse(weight: Floats) -> CoarseMatrix:
    """Weight [N, K], each rounded to one of 16 values times a scale of its output, and one of its input for 32
    outputs."""
    matrix = float_tensor(weight, "weight", 2)
    if 0 in matrix.shape:
        raise ValueError("weight must have at least one output and one input")
    if not bool(matrix.isfinite().all()):
        raise ValueError("weight must be finite")
    scales = matrix.square().mean(1).sqrt()
    even = torch.where(scales[:, None] > 0, matrix / scales[:, None], torch.zeros_like(matrix))
    steps = even.abs().amax(0) / STEPS
    least = torch.finfo(matrix.dtype).tiny
    units = [_rounded(even[first : first + UNIT], steps.clamp(min=least)) for first in range(0, len(even), UNIT)]
    return CoarseMatrix(torch.cat(units) * scales[:, None], scales, steps)


def _rounded(unit: Tensor, step: Tensor) -> Tensor:
    """The rows of one unit, of those scales that lose least."""
    between = (MAGNITUDES[1:] + MAGNITUDES[:-1]) / 2
    best, least = torch.zeros_like(unit), torch.full_like(step, torch.inf)
    for share in TRIED:
        scale = (share * unit.abs().amax(0) / step).round().clamp(1, STEPS) * step
        values = MAGNITUDES[torch.bucketize(unit.abs() / scale, between)].to(unit.dtype) * scale
        made = torch.where(unit < 0, -values, values)
        error = (made - unit).square().sum(0)
        better = error < least
        best, least = torch.where(better, made, best), torch.where(better, error, least)
    return torch.where(unit.abs().amax(0) > 0, best, torch.zeros_like(best))


def repack_coarse(
    words: NDArray[np.int32], outputs: int, inputs: int, *, scales: Floats, steps: Floats
) -> CoarseMatrix:
    """The matrix whose `words`, `scales` and `steps` these were; they are copied."""
    if words.shape != (outputs * inputs,):
        raise ValueError(f"words must have the shape [{outputs * inputs}] of this layer")
    matrix = torch.from_numpy(words.view(np.float32).reshape(outputs, inputs).copy())
    kind = matrix.dtype
    return CoarseMatrix(
        matrix,
        per_channel(scales, "scales", outputs, "outputs", kind),
        per_channel(steps, "steps", inputs, "inputs", matrix.dtype),
    )
