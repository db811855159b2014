"""The decoder of a model of speech, and the words that it may say next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from models.kernels.reference.arrays import Channels, Floats, deliver, float_tensor, shaped_tensor, tensor_of
from models.kernels.reference.attention import attention
from models.kernels.reference.decoding import RowMatrix, row_matmul
from models.kernels.reference.gate import select_channels
from models.kernels.reference.norms import layer_norm
from models.kernels.reference.products import PackedMatrix, gated_matmul

Norm: TypeAlias = tuple[Floats, Floats]
Linear: TypeAlias = tuple[PackedMatrix, Floats]
Gate: TypeAlias = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class SpeechLayer:
    """See `speech_layer`."""

    norm: Norm
    qkv: Linear
    output: Linear
    heard_norm: Norm
    heard_query: Linear
    heard_output: Linear
    neurons_norm: Norm
    up: Linear
    down: Linear
    gate: Gate | None


@dataclass(frozen=True, slots=True)
class SpeechDecoder:
    """See `speech_decoder`."""

    layers: tuple[SpeechLayer, ...]
    norm: Norm
    head_size: int
    epsilon: float


def speech_layer(
    *,
    norm: Norm,
    qkv: Linear,
    output: Linear,
    heard_norm: Norm,
    heard_query: Linear,
    heard_output: Linear,
    neurons_norm: Norm,
    up: Linear,
    down: Linear,
    gate: Gate | None = None,
) -> SpeechLayer:
    """A layer's weights in the order of their use."""
    hidden, neurons = qkv[0].inputs, up[0].outputs
    sizes = ((qkv, "qkv", 3 * hidden, hidden), (output, "output", hidden, hidden), (up, "up", neurons, hidden))
    for (packed, _), name, outputs, inputs in (*sizes, (down, "down", hidden, neurons)):
        if (packed.outputs, packed.inputs) != (outputs, inputs):
            raise ValueError(f"{name} must have {outputs} outputs and {inputs} inputs")
    return SpeechLayer(norm, qkv, output, heard_norm, heard_query, heard_output, neurons_norm, up, down, gate)


def speech_decoder(layers: Sequence[SpeechLayer], norm: Norm, *, head_size: int, epsilon: float) -> SpeechDecoder:
    """The layers with the norm behind them."""
    if not layers:
        raise ValueError("layers must hold at least one")
    if head_size < 1 or layers[0].qkv[0].inputs % head_size:
        raise ValueError("head_size must divide the channels of norm")
    return SpeechDecoder(tuple(layers), norm, head_size, epsilon)


def speak(
    decoder: SpeechDecoder,
    x: Floats,
    cache: NDArray[Any],
    length: int,
    *,
    heads: Sequence[tuple[Channels | None, Floats]],
    heard: Sequence[Floats],
    bias: Floats | None = None,
    thresholds: Floats,
    active: NDArray[np.int32],
    seen: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """What words are compared with, [M, H], for each of the tokens x [M, H] behind the first `length` of a text. x,
    cache, active and seen are written."""
    rows = float_tensor(x, "x", 2).numpy()
    if length + len(rows) > cache.shape[2]:
        raise ValueError("cache must have room for all tokens")
    if len(heads) != 2 * len(decoder.layers):
        raise ValueError("heads must be of two attentions for each layer")
    if len(heard) != len(decoder.layers):
        raise ValueError("heard must be of each layer")
    for i, layer in enumerate(decoder.layers):
        own = _Layer(decoder, layer, rows, None if seen is None else seen[i])
        own.attend_to_said(cache[i], length, *heads[2 * i])
        own.attend_to_heard(np.asarray(heard[i]), bias, *heads[2 * i + 1])
        active[i] = own.feed_forward(float(thresholds[i]))
    deliver(torch.from_numpy(rows), x)
    return layer_norm(rows, *decoder.norm, decoder.epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer at work on x, which is written; so is what is seen of it, [M, 2 · H + neurons]."""

    decoder: SpeechDecoder
    layer: SpeechLayer
    x: NDArray[Any]
    seen: NDArray[Any] | None

    def attend_to_said(self, cache: NDArray[Any], length: int, channels: Channels | None, bias: Floats) -> None:
        """The tokens attend to each other and to those before, whose keys and values are in the cache."""
        hidden, end = self.x.shape[1], length + len(self.x)
        ids = None if channels is None else np.concatenate([np.asarray(channels) + i * hidden for i in range(3)])
        packed, shift = self.layer.qkv
        joined = gated_matmul(
            self._normed(self.layer.norm), packed, outputs=None if ids is None else ids.astype(np.int32), shift=shift
        )
        queries, keys, values = np.split(joined, 3, axis=1)
        width = queries.shape[1]
        cache[0, length:end, :width], cache[1, length:end, :width] = keys, values
        said = cache[0, :end, :width], cache[1, :end, :width]
        self._add(0, self.layer.output[0], channels, bias, queries, said, None, causal=True)

    def attend_to_heard(
        self, keys_values: NDArray[Any], of_positions: Floats | None, channels: Channels | None, bias: Floats
    ) -> None:
        """The tokens attend to what was heard."""
        packed, shift = self.layer.heard_query
        queries = gated_matmul(self._normed(self.layer.heard_norm), packed, outputs=channels, shift=shift)
        keys, values = np.split(keys_values, 2, axis=1)
        self._add(1, self.layer.heard_output[0], channels, bias, queries, (keys, values), of_positions, causal=False)

    def feed_forward(self, threshold: float) -> int:
        """How many neurons were active, of all tokens together."""
        (up, shift), (down, bias), gate = self.layer.up, self.layer.down, self.layer.gate
        values = gated_matmul(self._normed(self.layer.neurons_norm), up, shift=shift, activation="gelu")
        if self.seen is not None:
            self.seen[:, 2 * self.x.shape[1] :] = values
        if gate is None or not threshold > 0:
            gated_matmul(values, down, shift=bias, residual=self.x, out=self.x)
            return int(values.size)
        (means, norms, folded), count = gate, 0
        for i in range(len(values)):
            active, own = select_channels(values[i : i + 1], means, norms, threshold)
            row = self.x[i : i + 1]
            gated_matmul(own, down, inputs=active, shift=folded, residual=row, out=row)
            count += len(active)
        return count

    def _add(
        self,
        number: int,
        output: PackedMatrix,
        channels: Channels | None,
        bias: Floats,
        queries: NDArray[Any],
        attended: tuple[NDArray[Any], NDArray[Any]],
        of_positions: Floats | None,
        causal: bool,
    ) -> None:
        width = queries.shape[1]
        mixed = queries
        if width:
            mixed = attention(queries, *attended, self.decoder.head_size, bias=of_positions, causal=causal)
        if self.seen is not None:
            self.seen[:, number * self.x.shape[1] : number * self.x.shape[1] + width] = mixed
        gated_matmul(mixed, output, inputs=channels, shift=bias, residual=self.x, out=self.x)

    def _normed(self, norm: Norm) -> NDArray[Any]:
        return layer_norm(self.x, *norm, self.decoder.epsilon)


def likely_words(
    state: Floats,
    seen: Floats,
    preview: RowMatrix,
    words: RowMatrix,
    *,
    possible: Floats,
    threshold: float,
    most: int,
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The ids of the words whose preview is likely, and their logits."""
    if preview.by != "inputs":
        raise ValueError("preview must be packed by inputs")
    if words.by != "outputs":
        raise ValueError("words must be packed by outputs")
    if not 0 < threshold <= 1:
        raise ValueError("threshold must be above 0 and at most 1")
    if most < 1:
        raise ValueError("most must be at least 1")
    added = shaped_tensor(possible, "possible", (words.outputs,), words.weight.dtype)
    values = (tensor_of(row_matmul(seen, preview))[0] + added).nan_to_num(nan=-math.inf, neginf=-math.inf)
    least = torch.maximum(values.max() + math.log(threshold), values.topk(min(most, len(values))).values[-1])
    ids = torch.nonzero(values >= least).flatten()
    logits = tensor_of(row_matmul(state, words))[0] + added
    return ids.to(torch.int32).numpy(), logits[ids].numpy()
