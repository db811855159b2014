"""Coarse weights for a few rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.arrays import Floats, deliver, float_tensor

SHARE_BESIDE_COARSE = 0.25
UNIT = 32
MAGNITUDES = torch.tensor([0.051025390625, 0.154296875, 0.259765625, 0.373046875, 0.49609375, 0.6328125, 0.796875, 1.0])
SCALES = torch.tensor((4.0 ** (torch.arange(15) / 14 - 1)).bfloat16().tolist())
"""A quarter to one, in bf16."""
TRIED, CUT_OFF, ROOM = 3, 0.05, 1.25
MOST_SCALE = float(torch.finfo(torch.bfloat16).max)


@dataclass(frozen=True, slots=True)
class CoarseMatrix:
    """Weights of 4 bits; see `pack_coarse`."""

    matrix: Tensor

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
    def weight(self) -> NDArray[Any]:
        return deliver(self.matrix, None)


def pack_coarse(
    weight: Floats, *, order: NDArray[np.int32] | None = None, factor: Floats | None = None
) -> CoarseMatrix:
    """Weight [N, K], each rounded to one of 16 values times a scale of its output, and one of its input for 32
    outputs; with an order and a factor, see `models.kernels.pack_coarse`, in turn, and then those behind are changed by
    what makes up for the error."""
    matrix = float_tensor(weight, "weight", 2)
    if 0 in matrix.shape:
        raise ValueError("weight must have at least one output and one input")
    if not bool(matrix.isfinite().all()):
        raise ValueError("weight must be finite")
    if (order is None) != (factor is None):
        raise ValueError("order and factor must be given together")
    scales = _to_bf16(matrix.double().square().mean(1).sqrt().clamp_max(MOST_SCALE).to(matrix.dtype))
    too_small = (1 / scales.float()).isinf()[:, None]  # zeros, and what is nearly zero
    even = torch.where(too_small, torch.zeros_like(matrix), matrix / scales[:, None])
    largest = even.abs().amax(0)
    if order is None or factor is None:
        made = _rounded(even, _to_bf16(largest))
    else:
        made = _making_up(even, _to_bf16(ROOM * largest), order, float_tensor(factor, "factor", 2))
    return CoarseMatrix(made * scales[:, None])


def _to_bf16(values: Tensor) -> Tensor:
    return values.bfloat16().to(values.dtype)


def _making_up(matrix: Tensor, steps: Tensor, order: NDArray[np.int32], factor: Tensor) -> Tensor:
    inputs = matrix.shape[1]
    if sorted(order) != list(range(inputs)):
        raise ValueError("order must have each input once")
    if factor.shape != (inputs, inputs):
        raise ValueError(f"factor must have the shape [{inputs}, {inputs}]")
    factor = factor.tril()
    if not (bool(factor.isfinite().all()) and bool((factor.diagonal() > 0).all())):
        raise ValueError("factor must be finite, and above 0 on its diagonal")
    left, made = matrix[:, order], torch.empty_like(matrix)
    for i, channel in enumerate(order):
        rounded = _rounded(left[:, i : i + 1], steps[channel : channel + 1])
        error = (left[:, i : i + 1] - rounded) / factor[i, i]
        left[:, i + 1 :] -= error * factor[i + 1 :, i]
        made[:, channel] = rounded[:, 0]
    return made


def _rounded(even: Tensor, steps: Tensor) -> Tensor:
    """Of each unit those of the scales that lose least."""
    least = torch.finfo(even.dtype).tiny
    units = [_rounded_unit(even[first : first + UNIT], steps.clamp(min=least)) for first in range(0, len(even), UNIT)]
    return torch.cat(units)


def _rounded_unit(unit: Tensor, step: Tensor) -> Tensor:
    between = (MAGNITUDES[1:] + MAGNITUDES[:-1]) / 2
    best, least = torch.zeros_like(unit), unit.square().sum(0)
    scales = SCALES.to(unit.dtype)
    enough = scales[:, None] * step >= (1 - CUT_OFF) * unit.abs().amax(0)
    enough[-1] = True
    first = enough.int().argmax(0)
    for smaller in range(TRIED):
        scale = scales[(first - smaller).clamp(min=0)] * step
        values = MAGNITUDES[torch.bucketize(unit.abs() / scale, between)].to(unit.dtype) * scale
        made = torch.where(unit < 0, -values, values)
        error = (made - unit).square().sum(0)
        better = error < least
        best, least = torch.where(better, made, best), torch.where(better, error, least)
    return best


def repack_coarse(words: NDArray[np.int32], outputs: int, inputs: int) -> CoarseMatrix:
    """The matrix whose `words` these were; they are copied."""
    if words.shape != (outputs * inputs,):
        raise ValueError(f"words must have the shape [{outputs * inputs}] of this layer")
    return CoarseMatrix(torch.from_numpy(words.view(np.float32).reshape(outputs, inputs).copy()))
