"""The embeddings of tokens, and products of them that are looked up."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.arrays import (
    Channels,
    Floats,
    checked_instruction_set,
    float_tensor,
    int32_tensor,
    per_channel,
    shaped_tensor,
)
from models.kernels.reference.datatypes import checked_datatype, to_bf16


class LookupTable:
    """Rows [rows, width] of floats, or rounded to bf16, which `fill` writes."""

    def __init__(self, rows: int, width: int, datatype: str = "fp32") -> None:
        if rows < 0 or width < 0:
            raise TypeError("rows and width must not be negative")
        if not 0 < width <= 2**24:
            raise ValueError("width must be from 1 to 2^24")
        if rows > 2**24:
            raise ValueError("rows must be at most 2^24")
        if checked_datatype(datatype) == "int8":
            raise ValueError("datatype must be fp32 or bf16, not 'int8'")
        self.rows, self.width, self.datatype = rows, width, datatype
        self.nbytes = rows * width * (2 if datatype == "bf16" else 4)
        self.values = torch.zeros(rows, width, dtype=torch.float64)

    def fill(self, first: int, values: Floats) -> None:
        """Rows from `first` on become `values` [n, width]."""
        rows = float_tensor(values, "values", 2)
        if rows.shape[1] != self.width:
            raise ValueError(f"values must have {self.width} channels, not {rows.shape[1]}")
        if first < 0:
            raise TypeError("first must not be negative")
        if first + len(rows) > self.rows:
            raise ValueError(f"values must end at row {self.rows} of the table at most")
        self.values[first : first + len(rows)] = to_bf16(rows) if self.datatype == "bf16" else rows


def embed(
    words: Floats,
    positions: Floats,
    ids: Channels,
    places: Channels,
    weight: Floats,
    bias: Floats,
    epsilon: float,
    *,
    instruction_set: str | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The norm of words[ids] + positions[places], and 1 / √(variance + epsilon) of each row."""
    checked_instruction_set(instruction_set)
    table = float_tensor(words, "words", 2)
    channels = table.shape[1]
    if channels == 0:
        raise ValueError("words must have at least one channel")
    added = float_tensor(positions, "positions", 2)
    if added.shape[1] != channels:
        raise ValueError(f"positions must have {channels} channels, not {added.shape[1]}")
    summed = _summed(table, added, ids, places)
    scale, shift = (
        per_channel(vector, name, channels, "channels", table.dtype)
        for vector, name in ((weight, "weight"), (bias, "bias"))
    )
    if not epsilon >= 0:
        raise ValueError("epsilon must be a number and not negative")
    deviation = summed - summed.mean(1, keepdim=True)
    factors = torch.rsqrt(deviation.square().mean(1) + epsilon)
    return (deviation * factors[:, None] * scale + shift).numpy(), factors.numpy()


def look_up(
    table: LookupTable,
    added: Floats,
    ids: Channels,
    places: Channels,
    factors: Floats,
    bias: Floats,
    *,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """factors · (table[ids] + added[places]) + bias."""
    checked_instruction_set(instruction_set)
    beside = float_tensor(added, "added", 2)
    if beside.shape[1] != table.width:
        raise ValueError(f"added must have {table.width} channels, not {beside.shape[1]}")
    summed = _summed(table.values.to(beside.dtype), beside, ids, places)
    each = shaped_tensor(factors, "factors", summed.shape[:1], beside.dtype)
    shift = per_channel(bias, "bias", table.width, "channels", beside.dtype)
    y: NDArray[Any] = (summed * each[:, None] + shift).numpy()
    return y


def _summed(words: Tensor, positions: Tensor, ids: Channels, places: Channels) -> Tensor:
    of_words = _rows(ids, "ids", None, len(words))
    return words[of_words] + positions[_rows(places, "places", len(of_words), len(positions))]


def _rows(value: Channels, name: str, count: int | None, limit: int) -> Tensor:
    rows = int32_tensor(value, name)
    if rows.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, not {rows.ndim}")
    if count is not None and len(rows) != count:
        raise ValueError(f"{name} must have one value for each of the {count} tokens, not {len(rows)}")
    if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < limit):
        raise ValueError(f"{name} must hold rows below {limit}")
    return rows.long()
