"""The two halves of a layer of an encoder."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.kernels.reference.arrays import Channels, Floats, channel_ids, float_tensor, shaped_tensor
from models.kernels.reference.attention import attention
from models.kernels.reference.datatypes import checked_datatype
from models.kernels.reference.norms import layer_norm
from models.kernels.reference.products import PackedMatrix, feed_forward, gated_matmul
from models.kernels.reference.threads import Threads

Norm: TypeAlias = tuple[Floats, Floats]
Linear: TypeAlias = tuple[PackedMatrix, Floats]


@dataclass(frozen=True, slots=True)
class EncoderAttention:
    """See `encoder_attention`."""

    qkv: Linear
    output: Linear
    norm: Norm
    heads: int
    head_size: int
    scale: float
    epsilon: float
    datatype: str


@dataclass(frozen=True, slots=True)
class EncoderFeedForward:
    """See `encoder_feed_forward`."""

    up: Linear
    down: Linear
    norm: Norm
    epsilon: float


def encoder_attention(
    qkv: Linear,
    output: Linear,
    norm: Norm,
    *,
    heads: int,
    head_size: int,
    scale: float,
    epsilon: float,
    datatype: str = "fp32",
) -> EncoderAttention:
    """A layer's first half."""
    hidden = qkv[0].inputs
    if heads < 1 or hidden % heads:
        raise ValueError("heads must divide the inputs of qkv")
    if head_size < 1:
        raise ValueError("head_size must be at least 1 and at most 2^24")
    if not math.isfinite(scale):
        raise ValueError("scale must be a number")
    checked_datatype(datatype)
    _check(qkv, "qkv", 2 * heads * head_size + hidden, hidden)
    _check(output, "output", hidden, hidden)
    _check_norm(norm, hidden, epsilon)
    return EncoderAttention(qkv, output, norm, heads, head_size, scale, epsilon, datatype)


def encoder_feed_forward(up: Linear, down: Linear, norm: Norm, *, epsilon: float) -> EncoderFeedForward:
    """Its second half."""
    hidden, neurons = up[0].inputs, up[0].outputs
    _check(up, "up", neurons, hidden)
    _check(down, "down", hidden, neurons)
    _check_norm(norm, hidden, epsilon)
    return EncoderFeedForward(up, down, norm, epsilon)


def attend_half(
    half: EncoderAttention,
    x: Floats,
    qkv: Floats | None = None,
    bias: Floats | None = None,
    heads: Channels | None = None,
    heads_bias: Floats | None = None,
    threads: Threads | None = None,
) -> NDArray[Any]:
    """norm(x + output(attention(qkv))) of x [M, H], by the named heads alone."""
    rows, hidden = _rows(x, half.output[0].outputs), half.output[0].outputs
    if len(rows) == 0:
        raise ValueError("x must have at least one row")
    if (heads is None) != (heads_bias is None):
        raise ValueError("heads and heads_bias must both be there, or neither")
    kind = float_tensor(x, "x", 2).dtype
    shift = half.output[1] if heads_bias is None else shaped_tensor(heads_bias, "heads_bias", [hidden], kind).numpy()
    active = channel_ids(heads, "heads", half.heads).numpy()
    if qkv is None:
        made = gated_matmul(rows, half.qkv[0], shift=half.qkv[1])
    else:
        made = shaped_tensor(qkv, "qkv", [len(rows), half.qkv[0].outputs], kind).numpy()
    scored = half.heads * half.head_size
    q, k, v = (
        part.reshape(len(rows), half.heads, -1)[:, active].reshape(len(rows), -1)
        for part in np.split(made, [scored, 2 * scored], 1)
    )
    if not len(active):
        return layer_norm(np.tile(np.asarray(shift), (len(rows), 1)), *half.norm, half.epsilon, residual=rows)
    mixed = attention(q, k, v, half.head_size, bias=bias, scale=half.scale, datatype=half.datatype)
    channels = np.arange(hidden, dtype=np.int32).reshape(half.heads, -1)[active].ravel()
    added = gated_matmul(mixed, half.output[0], inputs=channels, shift=shift)
    return layer_norm(added, *half.norm, half.epsilon, residual=rows)


def feed_forward_half(half: EncoderFeedForward, x: Floats, threads: Threads | None = None) -> NDArray[Any]:
    """norm(x + down(gelu(up(x)))) of x [M, H]."""
    rows = _rows(x, half.down[0].outputs)
    added = feed_forward(rows, half.up[0], half.down[0], shift=half.up[1], activation="gelu", bias=half.down[1])
    return layer_norm(added, *half.norm, half.epsilon, residual=rows)


def _rows(x: Floats, hidden: int) -> NDArray[Any]:
    rows = float_tensor(x, "x", 2)
    if rows.shape[1] != hidden:
        raise ValueError(f"x must have {hidden} channels, not {rows.shape[1]}")
    return rows.numpy()


def _check(linear: Linear, name: str, outputs: int, inputs: int) -> None:
    packed, bias = linear
    if (packed.outputs, packed.inputs) != (outputs, inputs):
        raise ValueError(
            f"{name} must have {outputs} outputs and {inputs} inputs, not {packed.outputs} and {packed.inputs}"
        )
    shaped_tensor(bias, name, [outputs], float_tensor(bias, name, 1).dtype)


def _check_norm(norm: Norm, hidden: int, epsilon: float) -> None:
    for vector in norm:
        shaped_tensor(vector, "norm", [hidden], float_tensor(vector, "norm", 1).dtype)
    if not epsilon >= 0:
        raise ValueError("epsilon must be a number and not negative")
