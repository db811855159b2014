"""Attention."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.kernels.reference.arrays import (
    Channels,
    Floats,
    checked_instruction_set,
    deliver,
    float_tensor,
    head_ids,
    shaped_tensor,
)
from models.kernels.reference.datatypes import checked_datatype
from models.kernels.reference.threads import Threads


def attention(
    q: Floats,
    k: Floats,
    v: Floats,
    head_size: int,
    *,
    key_heads: Channels | None = None,
    bias: Floats | None = None,
    scale: float | None = None,
    causal: bool = False,
    datatype: str = "fp32",
    out: Floats | None = None,
    threads: Threads | None = None,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """Softmax attention of one sequence, q [T, n · d] on k [S, m · d] and v [S, m · e], to [T, n · e]; head i of q
    reads head key_heads[i] of k and v. The datatype is what the core may round to; nothing is rounded here."""
    checked_instruction_set(instruction_set)
    checked_datatype(datatype)
    if head_size < 1:
        raise ValueError("head_size must be at least 1")
    queries = float_tensor(q, "q", 2)
    keys, values = float_tensor(k, "k", 2, queries.dtype), float_tensor(v, "v", 2, queries.dtype)
    for name, array in (("q", queries), ("k", keys)):
        if array.shape[1] % head_size:
            raise ValueError(f"{name} must have whole heads of {head_size} columns, not {array.shape[1]} columns")
    if len(values) != len(keys):
        raise ValueError("v must have as many rows as k")
    n_queries, n_keys = len(queries), len(keys)
    if n_keys == 0:
        raise ValueError("k must have at least one row")
    if causal and n_keys < n_queries:
        raise ValueError("k must have at least as many rows as q where attention is causal")
    if scale is not None and not math.isfinite(scale):
        raise ValueError("scale must be a number")
    heads, n_key_heads = queries.shape[1] // head_size, keys.shape[1] // head_size
    width = values.shape[1]
    if width % n_key_heads or not width if n_key_heads else width:
        raise ValueError(f"v must have the {n_key_heads} heads of k")
    value_size = width // n_key_heads if n_key_heads else head_size
    read = head_ids(key_heads, "key_heads", heads, n_key_heads)

    split_keys, split_values = (
        array.reshape(n_keys, n_key_heads, size).transpose(0, 1)[read]
        for array, size in ((keys, head_size), (values, value_size))
    )
    scores = queries.reshape(n_queries, heads, head_size).transpose(0, 1) @ split_keys.transpose(1, 2)
    scores = scores * (head_size**-0.5 if scale is None else scale)
    if bias is not None:
        one = np.ndim(bias) == 1
        scores = scores + shaped_tensor(bias, "bias", scores.shape[2:] if one else scores.shape, scores.dtype)
    if causal:
        hidden = torch.ones(n_queries, n_keys, dtype=torch.bool).triu(n_keys - n_queries + 1)
        scores = scores.masked_fill(hidden, -math.inf)
    mixed = scores.softmax(-1) @ split_values
    return deliver(mixed.transpose(0, 1).reshape(n_queries, heads * value_size), out)


def rotary(
    x: Floats, cosines: Floats, sines: Floats, *, out: Floats | None = None, instruction_set: str | None = None
) -> NDArray[Any]:
    """Rotary embedding of x [T, n · d] by cosines and sines [T, d / 2]: with a and b the halves of each head,
    a cos − b sin and b cos + a sin."""
    checked_instruction_set(instruction_set)
    rows, cosine = float_tensor(x, "x", 2), float_tensor(cosines, "cosines", 2)
    if len(cosine) != len(rows) or cosine.shape[1] == 0:
        raise ValueError(f"cosines must have one row for each of the {len(rows)} rows of x, and a column")
    sine = shaped_tensor(sines, "sines", cosine.shape, cosine.dtype)
    size = 2 * cosine.shape[1]
    if rows.shape[1] % size:
        raise ValueError(f"x must have whole heads of {size} columns, not {rows.shape[1]} columns")
    first, second = rows.reshape(len(rows), rows.shape[1] // size, 2, size // 2).unbind(2)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = torch.stack((first * cosine - second * sine, second * cosine + first * sine), 2)
    return deliver(turned.reshape(rows.shape), out)
