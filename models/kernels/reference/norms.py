"""Layer norm and RMS norm."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.arrays import (
    Floats,
    checked_instruction_set,
    deliver,
    float_tensor,
    per_channel,
    shaped_tensor,
)


def layer_norm(
    x: Floats,
    weight: Floats,
    bias: Floats,
    epsilon: float,
    *,
    residual: Floats | None = None,
    out: Floats | None = None,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """The norm of each row of x + residual [M, C]: (z − mean) / √(variance + epsilon) · weight + bias."""
    total = _total(x, residual, epsilon, instruction_set)
    scale = per_channel(weight, "weight", total.shape[1], "channels", total.dtype)
    shift = per_channel(bias, "bias", total.shape[1], "channels", total.dtype)
    deviation = total - total.mean(1, keepdim=True)
    return deliver(_normal(deviation, epsilon) * scale + shift, out)


def rms_norm(
    x: Floats,
    weight: Floats,
    epsilon: float,
    *,
    residual: Floats | None = None,
    out: Floats | None = None,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """The norm of each row of x + residual [M, C]: z / √(mean of z² + epsilon) · weight."""
    total = _total(x, residual, epsilon, instruction_set)
    scale = per_channel(weight, "weight", total.shape[1], "channels", total.dtype)
    return deliver(_normal(total, epsilon) * scale, out)


def _total(x: Floats, residual: Floats | None, epsilon: float, instruction_set: str | None) -> Tensor:
    checked_instruction_set(instruction_set)
    rows = float_tensor(x, "x", 2)
    if rows.shape[1] == 0:
        raise ValueError("x must have at least one channel")
    if not epsilon >= 0:
        raise ValueError("epsilon must be a number and not negative")
    return rows if residual is None else rows + shaped_tensor(residual, "residual", rows.shape, rows.dtype)


def _normal(values: Tensor, epsilon: float) -> Tensor:
    return values * torch.rsqrt(values.square().mean(1, keepdim=True) + epsilon)
