"""Products in bf16 and int8 with the rounding of the compiled core."""

import torch
from torch import Tensor

DATATYPES = ("fp32", "bf16", "int8")
MOST_INT8_INPUTS = (2**31 - 1) // 127**2
"""The most inputs whose products fit a sum of 32 bits."""


def checked_datatype(name: str) -> str:
    """One of the three."""
    if name not in DATATYPES:
        raise ValueError(f"datatype must be fp32, bf16 or int8, not '{name}'")
    return name


def reduced_weight(weight: Tensor, datatype: str) -> Tensor:
    """The values that a layer's weight [O, …] stands for once it is packed, in its own type."""
    if datatype == "fp32":
        return weight.clone()
    if not bool(weight.isfinite().all()):
        raise ValueError(f"weight must be finite for {datatype}")
    if datatype == "bf16":
        return to_bf16(weight)
    if weight.shape[1] > MOST_INT8_INPUTS:
        raise ValueError(f"weight must have at most {MOST_INT8_INPUTS} inputs for int8")
    numbers, scales = quantised(weight.flatten(1))
    return (numbers * scales.to(weight.dtype)).reshape(weight.shape)


def to_bf16(x: Tensor) -> Tensor:
    """Rounded to bf16, in its own type. Float64 passes through float32, where the values of the core come from."""
    return x.to(torch.float32).to(torch.bfloat16).to(x.dtype)


def product(rows: Tensor, weight: Tensor, datatype: str) -> Tensor:
    """rows [M, K] · weightᵀ [N, K], both as `reduced_weight` and the caller have them, activations rounded here."""
    if datatype == "fp32":
        return rows @ weight.T
    if datatype == "bf16":
        return to_bf16(rows) @ weight.T
    numbers, scales = quantised(rows)
    # Whole numbers in float64: exact, as the core's integers are.
    return ((numbers.double() @ weight.double().T) * scales.double()).to(rows.dtype)


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of [M, K] as whole numbers from -127 to 127, in its own type, and scales [M, 1] in float32.

    A row of zeros, or of numbers too small for a scale, has the scale 0; one that is not finite NaN.
    """
    if not rows.shape[1]:
        return rows, torch.ones(len(rows), 1)
    values = rows.to(torch.float32)
    largest = values.abs().amax(1, keepdim=True)
    # Of two tensors: a number over a tensor is its reciprocal times the number to torch, and rounds twice.
    most = torch.full_like(largest, 127)
    inverse, finite = most / largest, largest.isfinite()
    vanishing = finite & inverse.isinf()
    scales = torch.where(finite, torch.where(vanishing, torch.zeros_like(largest), largest / most), torch.nan)
    numbers = torch.where(finite & ~vanishing, (values * inverse).round(), torch.zeros_like(values))
    return numbers.to(rows.dtype), scales
