"""Llama (Touvron et al. 2023) and its kin Mistral, Qwen2 and Qwen3, on our kernels: tokens in, logits of what follows.

    x = table[tokens]
    for each layer:
        x = x + output(attention(rotary(queries), rotary(keys), values))    of norm(x)
        x = x + down(silu(gate) · up)                                       of norm(x)
    logits = head(norm(x))

What the families add is found in the checkpoint: biases (Qwen2), norms of each head's queries and keys (Qwen3), a
window of positions (Mistral), a head that is the table (tied). Keys and values are kept: a position is computed
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.llama_shape import LlamaShape

Array = NDArray[np.float32]
FIRST_CAPACITY = 128
"""Positions that a new cache has room for; it doubles when it is full."""


class Weights(Protocol):
    """The tensors of a checkpoint by the names that Hugging Face's have."""

    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> Array:
        """The tensor in float32. Raises `ValueError` where it is missing."""

    def rows(self, name: str, ids: Sequence[int]) -> Array:
        """Rows of a matrix, in float32, without reading the others."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A packed product and its bias [outputs], None for 0."""

    packed: kernels.PackedMatrix
    bias: Array | None


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer's weights, in the order of their use; the norms of queries and keys are of one head, or None."""

    attention_norm: Array
    qkv: Linear
    query_norm: Array | None
    key_norm: Array | None
    output: Linear
    norm: Array
    gate: Linear
    up: Linear
    down: Linear
    window: int


@dataclass(slots=True)
class Cache:
    """The keys and values [capacity, key heads · head size] that each layer has computed of one sequence."""

    size: int
    length: int = 0
    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def reserve(self, layers: int, length: int) -> None:
        """Makes room for so many positions."""
        capacity = self.keys[0].shape[0] if self.keys else 0
        if length <= capacity:
            return
        capacity = max(FIRST_CAPACITY, 2 * capacity, length)
        self.keys = [self._grown(self.keys, i, capacity) for i in range(layers)]
        self.values = [self._grown(self.values, i, capacity) for i in range(layers)]

    def _grown(self, parts: list[Array], layer: int, capacity: int) -> Array:
        grown = np.zeros((capacity, self.size), np.float32)
        if parts:
            grown[: self.length] = parts[layer][: self.length]
        return grown


class Llama:
    """A decoder with its weights. Runs may overlap in several threads, each with a cache of its own."""

    def __init__(self, shape: LlamaShape, weights: Weights, datatype: str = "fp32") -> None:
        """Packs the weights; the products are in the `datatype` "fp32", "bf16" or "int8", all else is in float32.

        Raises `ValueError` for weights of another shape."""
        self.shape = shape
        self._weights = weights
        self._norm = weights["model.norm.weight"]
        self.layers = tuple(_layer(weights, shape, i, datatype) for i in range(shape.layers))
        head = "model.embed_tokens" if shape.tied or "lm_head.weight" not in weights else "lm_head"
        self._head = _linear(weights, datatype, head)
        if self._head.packed.outputs != shape.vocabulary or self._head.packed.inputs != shape.hidden:
            raise ValueError(f"{head}.weight must be [{shape.vocabulary}, {shape.hidden}], as config.json says")

    def start(self) -> Cache:
        """The cache of a new sequence."""
        return Cache(self.shape.key_heads * self.shape.head_size)

    def advance(self, tokens: Sequence[int], cache: Cache) -> Array:
        """The last hidden states [n, hidden] of tokens [n] that follow those in the cache, which they are added to."""
        shape, first = self.shape, cache.length
        cache.reserve(shape.layers, first + len(tokens))
        positions = np.arange(first, first + len(tokens), dtype=np.float32)
        angles = positions[:, None] * shape.frequencies
        turn = np.cos(angles), np.sin(angles)
        x = self._weights.rows("model.embed_tokens.weight", tokens)
        for i, layer in enumerate(self.layers):
            x = self._attend(x, layer, turn, first, cache.keys[i], cache.values[i])
            normed = kernels.rms_norm(x, layer.norm, shape.epsilon)
            neurons = _product(normed, layer.gate, activation="silu") * _product(normed, layer.up)
            x = _product(neurons, layer.down, residual=x)
        cache.length = first + len(tokens)
        return x

    def logits(self, states: Array) -> Array:
        """What follows each of the last hidden states [n, hidden]: [n, vocabulary]."""
        return _product(kernels.rms_norm(states, self._norm, self.shape.epsilon), self._head)

    def _attend(
        self, x: Array, layer: LlamaLayer, turn: tuple[Array, Array], first: int, keys: Array, values: Array
    ) -> Array:
        """The first half of a layer, for positions from `first` on, whose keys and values go into the cache."""
        shape, last = self.shape, first + len(x)
        width, key_width = shape.heads * shape.head_size, shape.key_heads * shape.head_size
        qkv = _product(kernels.rms_norm(x, layer.attention_norm, shape.epsilon), layer.qkv)
        queries, new_keys = qkv[:, :width], qkv[:, width : width + key_width]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._head_norm(queries, layer.query_norm)
            new_keys = self._head_norm(new_keys, layer.key_norm)
        queries = kernels.rotary(queries, *turn)
        kernels.rotary(new_keys, *turn, out=keys[first:last])
        values[first:last] = qkv[:, width + key_width :]
        heads = self._attention(queries, keys[:last], values[:last], layer.window)
        return _product(heads, layer.output, residual=x)

    def _attention(self, queries: Array, keys: Array, values: Array, window: int) -> Array:
        """Each query attends to the keys up to its own, or to the last `window` of those."""
        if not window or len(keys) <= window:
            return kernels.attention(queries, keys, values, self.shape.head_size, causal=True)
        heads = np.empty(queries.shape, np.float32)
        for row, end in enumerate(range(len(keys) - len(queries) + 1, len(keys) + 1)):
            seen = slice(max(0, end - window), end)
            own = queries[row : row + 1], keys[seen], values[seen]
            kernels.attention(*own, self.shape.head_size, out=heads[row : row + 1])
        return heads

    def _head_norm(self, x: Array, weight: Array) -> Array:
        heads = np.ascontiguousarray(x).reshape(-1, self.shape.head_size)
        return kernels.rms_norm(heads, weight, self.shape.epsilon).reshape(x.shape)


def _product(x: Array, linear: Linear, activation: str = "none", residual: Array | None = None) -> Array:
    return kernels.gated_matmul(x, linear.packed, shift=linear.bias, activation=activation, residual=residual)


def _layer(weights: Weights, shape: LlamaShape, index: int, datatype: str) -> LlamaLayer:
    name = f"model.layers.{index}"
    attention, feed_forward = f"{name}.self_attn", f"{name}.mlp"
    query_norm, key_norm = f"{attention}.q_norm.weight", f"{attention}.k_norm.weight"
    return LlamaLayer(
        attention_norm=weights[f"{name}.input_layernorm.weight"],
        qkv=_linear(weights, datatype, *(f"{attention}.{part}_proj" for part in "qkv")),
        query_norm=_optional(weights, query_norm),
        key_norm=_optional(weights, key_norm),
        output=_linear(weights, datatype, f"{attention}.o_proj"),
        norm=weights[f"{name}.post_attention_layernorm.weight"],
        gate=_linear(weights, datatype, f"{feed_forward}.gate_proj"),
        up=_linear(weights, datatype, f"{feed_forward}.up_proj"),
        down=_linear(weights, datatype, f"{feed_forward}.down_proj"),
        window=shape.windows[index],
    )


def _optional(weights: Weights, name: str) -> Array | None:
    return weights[name] if name in weights else None  # noqa: SIM401


def _linear(weights: Weights, datatype: str, *names: str) -> Linear:
    """The linear layers of these names as one, their outputs side by side."""
    matrices = [weights[f"{name}.weight"] for name in names]
    biases = [
        weights[f"{name}.bias"] if f"{name}.bias" in weights else np.zeros(len(matrix), np.float32)
        for name, matrix in zip(names, matrices, strict=True)
    ]
    has_bias = any(f"{name}.bias" in weights for name in names)
    packed = kernels.pack_matrix(matrices[0] if len(matrices) == 1 else np.concatenate(matrices), datatype)
    return Linear(packed, np.concatenate(biases) if has_bias else None)
