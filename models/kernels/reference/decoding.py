"""Matrices for a few rows, and a step of a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

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
from models.kernels.reference.attention import rotary
from models.kernels.reference.coarse import SHARE_BESIDE_COARSE, CoarseMatrix
from models.kernels.reference.datatypes import checked_datatype, reduced_weight
from models.kernels.reference.norms import rms_norm


@dataclass(frozen=True, slots=True)
class RowMatrix:
    """A linear layer, weight [N, K]; see `pack_rows`."""

    weight: Tensor
    datatype: str
    by: str
    column_norms: Tensor
    bias: Tensor | None = None
    means: Tensor | None = None
    coarse: CoarseMatrix | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def instruction_set(self) -> str:
        return "torch"

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    @property
    def norms(self) -> NDArray[Any]:
        return deliver(self.column_norms, None)

    @property
    def scales(self) -> NDArray[Any] | None:
        return np.ones(self.outputs, np.float32) if self.datatype == "int8" else None

    @property
    def words(self) -> NDArray[np.int32]:
        """The rounded weights in float32; their scales are in them already."""
        return deliver(self.weight.float(), None).ravel().view(np.int32)

    def with_means(self, means: Floats | None, norms: Floats | None = None) -> "RowMatrix":
        """The same weights, with means [K] that stand for skipped inputs, and with other norms [K] if given."""
        kind, size = self.weight.dtype, self.inputs
        known = None if means is None else per_channel(means, "means", size, "inputs", kind)
        own = self.column_norms if norms is None else per_channel(norms, "norms", size, "inputs", kind)
        return replace(self, means=known, column_norms=own)

    def with_coarse(self, coarse: CoarseMatrix) -> "RowMatrix":
        """The same weights with coarse ones for what is not active."""
        if (coarse.outputs, coarse.inputs) != (self.outputs, self.inputs):
            raise ValueError("coarse must have as many outputs and inputs as the matrix")
        return replace(self, coarse=coarse)


def pack_rows(
    weight: Floats,
    datatype: str = "fp32",
    by: Literal["inputs", "outputs"] = "inputs",
    *,
    bias: Floats | None = None,
    instruction_set: str | None = None,
) -> RowMatrix:
    """A linear layer of weight [N, K], rounded to the datatype."""
    checked_instruction_set(instruction_set)
    if by not in ("inputs", "outputs"):
        raise ValueError(f"by must be inputs or outputs, not '{by}'")
    matrix = float_tensor(weight, "weight", 2)
    if 0 in matrix.shape:
        raise ValueError("weight must have at least one output and one input")
    added = None if bias is None else per_channel(bias, "bias", len(matrix), "outputs", matrix.dtype)
    rounded = reduced_weight(matrix, checked_datatype(datatype))
    return RowMatrix(rounded, datatype, by, torch.linalg.vector_norm(matrix, dim=0), added)


ROW_LAYOUT = "reference 2"
LAYER_GATES = 6
KEY_BLOCK = 128
LOOK_AGAIN = 8


def repack_rows(
    words: NDArray[np.int32],
    outputs: int,
    inputs: int,
    datatype: str,
    by: Literal["inputs", "outputs"],
    *,
    norms: Floats,
    scales: Floats | None,
    bias: Floats | None = None,
    instruction_set: str | None = None,
) -> RowMatrix:
    """The layer whose `words`, `norms` and `scales` these were; they are copied."""
    checked_instruction_set(instruction_set)
    if words.shape != (outputs * inputs,):
        raise ValueError(f"words must have the shape [{outputs * inputs}] of this layer")
    if (scales is None) == (checked_datatype(datatype) == "int8"):
        raise ValueError("scales belong to int8, and to nothing else")
    weight = torch.from_numpy(words.view(np.float32).reshape(outputs, inputs).copy())
    added = None if bias is None else per_channel(bias, "bias", outputs, "outputs", weight.dtype)
    column_norms = per_channel(norms, "norms", inputs, "inputs", weight.dtype)
    return RowMatrix(weight, datatype, by, column_norms, added)


def row_matmul(
    x: Floats,
    matrix: RowMatrix,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    activation: Literal["none", "silu"] = "none",
    residual: Floats | None = None,
    coarse: Floats | None = None,
    out: Floats | None = None,
) -> NDArray[Any]:
    """residual + x · Wᵀ + bias, or silu of it without a residual, [M, N], with what the coarse weights add."""
    if coarse is not None and matrix.coarse is None:
        raise ValueError("coarse must be None for a matrix without coarse weights")
    if coarse is not None and outputs is not None:
        raise ValueError("coarse must be None where there are outputs")
    if activation not in ("none", "silu"):
        raise ValueError(f"activation must be none or silu, not '{activation}'")
    if activation == "silu" and residual is not None:
        raise ValueError("residual must be None where there is an activation")
    rows = float_tensor(x, "x", 2, matrix.weight.dtype)
    read = channel_ids(inputs, "inputs", matrix.inputs)
    if rows.shape[1] != len(read):
        raise ValueError(f"x must have {len(read)} channels, not {rows.shape[1]}")
    if inputs is not None:
        if matrix.by != "inputs":
            raise ValueError("inputs must be None unless the matrix is packed by inputs")
        if activation != "none" or residual is not None or outputs is not None:
            raise ValueError("inputs must be None where there are outputs, an activation or a residual")
    result = rows @ matrix.weight[:, read].T
    if matrix.bias is not None:
        result = result + matrix.bias
    if outputs is not None:
        if matrix.by != "outputs":
            raise ValueError("outputs must be None unless the matrix is packed by outputs")
        if activation != "none" or residual is not None:
            raise ValueError("outputs must be None where there is an activation or a residual")
        return deliver(result[:, channel_ids(outputs, "outputs", matrix.outputs)], out)
    if coarse is not None and matrix.coarse is not None:
        result = (
            result + shaped_tensor(coarse, "coarse", (len(rows), matrix.inputs), rows.dtype) @ matrix.coarse.matrix.T
        )
    if activation == "silu":
        result = silu(result)
    if residual is not None:
        result = result + shaped_tensor(residual, "residual", result.shape, result.dtype)
    return deliver(result, out)


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """See `decoder_layer`."""

    attention_norm: Floats
    qkv: RowMatrix
    query_norm: Floats | None
    key_norm: Floats | None
    output: RowMatrix
    norm: Floats
    gate: RowMatrix
    up: RowMatrix
    down: RowMatrix
    neuron_norms: Tensor | None
    care: Tensor | None
    window: int


@dataclass(frozen=True, slots=True)
class Decoder:
    """See `decoder`."""

    layers: tuple[DecoderLayer, ...]
    norm: Floats
    head: RowMatrix
    heads: int
    key_heads: int
    head_size: int
    epsilon: float
    words: RowMatrix | None
    margin: float
    turn: RowMatrix | None

    @property
    def gates(self) -> int:
        return LAYER_GATES * len(self.layers) + 1


def decoder_layer(
    *,
    attention_norm: Floats,
    qkv: RowMatrix,
    query_norm: Floats | None = None,
    key_norm: Floats | None = None,
    output: RowMatrix,
    norm: Floats,
    gate: RowMatrix,
    up: RowMatrix,
    down: RowMatrix,
    neuron_norms: Floats | None = None,
    care: Floats | None = None,
    window: int = 0,
) -> DecoderLayer:
    """A layer's weights in the order of their use."""
    if up.by != "outputs":
        raise ValueError("up must be packed by outputs")
    if (query_norm is None) != (key_norm is None):
        raise ValueError("query_norm and key_norm must both be there, or neither")
    kind, norms, cares = gate.weight.dtype, None, None
    if neuron_norms is not None:
        norms = per_channel(neuron_norms, "neuron_norms", gate.outputs, "neurons", kind)
    if care is not None:
        cares = per_channel(care, "care", gate.inputs, "channels", kind)
    return DecoderLayer(attention_norm, qkv, query_norm, key_norm, output, norm, gate, up, down, norms, cares, window)


def decoder(
    layers: Sequence[DecoderLayer],
    norm: Floats,
    head: RowMatrix,
    *,
    heads: int,
    key_heads: int,
    head_size: int,
    epsilon: float,
    words: RowMatrix | None = None,
    margin: float = 0.0,
    turn: RowMatrix | None = None,
) -> Decoder:
    """The layers with what follows them."""
    if not layers:
        raise ValueError("layers must hold at least one")
    if heads % key_heads or head_size % 2:
        raise ValueError("heads must be a multiple of key_heads, and head_size even")
    if words is not None and (words.by, words.outputs) != ("outputs", head.outputs):
        raise ValueError("words must be packed by outputs and have as many outputs as head")
    return Decoder(tuple(layers), norm, head, heads, key_heads, head_size, epsilon, words, margin, turn)


def decode_step(
    decoder: Decoder,
    x: Floats,
    caches: Sequence[NDArray[Any]],
    far_shares: Sequence[NDArray[Any]],
    lengths: Sequence[int],
    cosines: Floats,
    sines: Floats,
    thresholds: Floats,
    active: NDArray[np.int32],
) -> NDArray[Any]:
    """One token of each sequence, each alone: logits [M, vocabulary]. x [M, H] and active [M, G + 1] are written."""
    states, kind = float_tensor(x, "x", 2), decoder.head.weight.dtype
    limits = shaped_tensor(thresholds, "thresholds", (len(caches), decoder.gates), kind)
    turns = float_tensor(cosines, "cosines", 2), float_tensor(sines, "sines", 2)
    logits = []
    if len(far_shares) != len(caches):
        raise ValueError("far_shares must be one for each cache")
    if len({id(shares) for shares in far_shares}) < len(far_shares):
        raise ValueError("far_shares must be different ones")
    for r, (cache, shares, length) in enumerate(zip(caches, far_shares, lengths, strict=True)):
        shaped_tensor(shares, "far_shares", (len(decoder.layers), decoder.key_heads), kind)
        if length >= cache.shape[2]:
            raise ValueError("caches must have room for one more position")
        turn = turns[0][r : r + 1], turns[1][r : r + 1]
        row = _Row(decoder, cache, shares, length, turn, limits[r].clone(), active[r])
        state, own = row.run(states[r : r + 1].clone())
        deliver(state, x[r : r + 1])
        logits.append(own)
    return deliver(torch.cat(logits), None)


@dataclass(frozen=True, slots=True)
class _Row:
    decoder: Decoder
    cache: NDArray[Any]
    far_shares: NDArray[Any]
    length: int
    turn: tuple[Tensor, Tensor]
    thresholds: Tensor
    active: NDArray[np.int32]

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for i, layer in enumerate(self.decoder.layers):
            x = self._attend(x, i, layer)
            gate = LAYER_GATES * i + 3
            gates = silu(self._gated(self._normed(x, layer.norm), layer.gate, gate))
            skips = layer.neuron_norms is not None and float(self.thresholds[gate + 1]) > 0
            normed = self._normed(x, layer.norm)
            up = tensor_of(row_matmul(normed, layer.up))
            products = gates * up
            if layer.neuron_norms is None:
                self.active[gate + 1] = gates.shape[1]
            else:
                chosen = self._choose(gate + 1, gates, layer.neuron_norms, layer.up.coarse)
                products = torch.where(chosen, products, self._left_up(normed, gates, layer.up))
            least = float(np.finfo(np.float32).tiny) if skips and layer.up.coarse is None else 0.0
            x = x + self._gated(products, layer.down, gate + 2, least)
        return x, self._logits(self._normed(x, self.decoder.norm), self.decoder.gates - 1)

    def _logits(self, normed: Tensor, gate: int) -> Tensor:
        turn = self.decoder.turn
        seen = normed if turn is None else tensor_of(row_matmul(normed, turn))
        logits = self._gated(seen, self.decoder.head, gate)
        self.active[gate + 1] = 0
        if self.decoder.words is None or not self.thresholds[gate] > 0:
            return logits
        again = logits >= logits.max() - self.decoder.margin
        self.active[gate + 1] = int(again.sum())
        means = self.decoder.head.means
        saliency = (seen if means is None else seen - means).abs() * self.decoder.head.column_norms
        left = torch.where(saliency <= self.thresholds[gate], saliency, torch.zeros_like(saliency))
        half_variance = left.square().sum() / (2 * logits.shape[1])
        return torch.where(again, tensor_of(row_matmul(normed, self.decoder.words)), logits + half_variance)

    def _normed(self, x: Tensor, weight: Floats) -> Tensor:
        return tensor_of(rms_norm(x, weight, self.decoder.epsilon))

    @staticmethod
    def _left_up(normed: Tensor, gates: Tensor, matrix: RowMatrix) -> Tensor:
        """What neurons are that are not active."""
        if matrix.coarse is None:
            return torch.zeros_like(gates)
        return gates * tensor_of(row_matmul(torch.zeros_like(normed), matrix, coarse=normed))

    def _choose(
        self, gate: int, values: Tensor, norms: Tensor, coarse: CoarseMatrix | None, least: float = 0.0
    ) -> Tensor:
        """Which of the values are active, under a threshold of at least so much."""
        threshold = self.thresholds[gate].clamp(min=least)
        all_of_them = torch.ones_like(values, dtype=torch.bool)
        chosen = ~(values.abs() * norms <= threshold) if threshold > 0 else all_of_them
        if coarse is not None and chosen.sum() > SHARE_BESIDE_COARSE * values.shape[1]:
            chosen = all_of_them
        self.active[gate] = int(chosen.sum())
        return chosen

    def _gated(self, values: Tensor, matrix: RowMatrix, gate: int, least: float = 0.0) -> Tensor:
        gated = max(float(self.thresholds[gate]), least) > 0
        means = matrix.means if gated and matrix.means is not None else torch.zeros_like(values)
        chosen = self._choose(gate, values - means, matrix.column_norms, matrix.coarse, least)
        left = None if matrix.coarse is None else torch.where(chosen, torch.zeros_like(values), values - means)
        return tensor_of(row_matmul(torch.where(chosen, values, means), matrix, coarse=left))

    def _attend(self, x: Tensor, index: int, layer: DecoderLayer) -> Tensor:
        shape = self.decoder
        width, key_width = shape.heads * shape.head_size, shape.key_heads * shape.head_size
        normed = self._normed(x, layer.attention_norm)
        if layer.care is not None:
            own = self.thresholds[LAYER_GATES * index : LAYER_GATES * (index + 1)]
            own /= torch.where(torch.arange(LAYER_GATES) == 1, 1.0, (normed @ layer.care).exp())  # 1: that on heads
        qkv = self._gated(normed, layer.qkv, LAYER_GATES * index)
        queries, keys, values = qkv[:, :width], qkv[:, width : width + key_width], qkv[:, width + key_width :]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._normed(queries.reshape(-1, shape.head_size), layer.query_norm).reshape(1, width)
            keys = self._normed(keys.reshape(-1, shape.head_size), layer.key_norm).reshape(1, key_width)
        end = self.length + 1
        self.cache[index, 0, self.length] = rotary(keys, *self.turn)[0]
        self.cache[index, 1, self.length] = values[0].numpy()
        begin = max(0, end - layer.window) if layer.window else 0
        heads = self._mix(tensor_of(rotary(queries, *self.turn)), index, begin, end)
        return x + self._gated(heads, layer.output, LAYER_GATES * index + 2)

    def _mix(self, queries: Tensor, index: int, begin: int, end: int) -> Tensor:
        """What the heads give that attend to the positions begin … end − 1, some of them to no far ones."""
        shape, gate = self.decoder, LAYER_GATES * index + 1
        share, size = shape.heads // shape.key_heads, shape.head_size
        places = torch.arange(begin, end)
        last = (end - KEY_BLOCK) // KEY_BLOCK * KEY_BLOCK
        far = (places >= KEY_BLOCK) & (places < (last if begin == 0 else 0))
        gated = bool(self.thresholds[gate] > 0) and bool(far.any())
        self.active[gate] = shape.key_heads
        mixed = []
        for head in range(shape.key_heads):
            keys, values = (
                torch.tensor(self.cache[index, part, begin:end, head * size : (head + 1) * size]) for part in (0, 1)
            )
            own = queries.reshape(shape.key_heads, share, size)[head]
            weights = (own @ keys.T / size**0.5).softmax(1)
            if gated:
                known = float(self.far_shares[index, head]) > self.thresholds[gate]
                if known or (self.length + index + head) % LOOK_AGAIN == 0:
                    self.far_shares[index, head] = float(weights[:, far].sum(1).max())
                else:
                    self.active[gate] -= 1
                    weights = torch.where(far, 0.0, weights)
                    weights = weights / weights.sum(1, keepdim=True)
            mixed.append((weights @ values).reshape(1, -1))
        return torch.cat(mixed, 1)
