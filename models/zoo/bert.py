"""BERT (Devlin et al. 2019), the encoder: token ids of one sequence in, hidden states out, on our kernels; and the
encoders that are made like it, which `bert_shape` tells apart.

    x = norm(words[ids] + positions + types)
    for each layer:
        x = norm(x + output(attention(qkv(x))))
        x = norm(x + down(gelu(up(x))))

One sequence at a time: there is no padding, and no mask. Queries, keys and values are one product; those of the first
layer are looked up where the tables for that are not too large (`token_products`).

Each layer has four gates, and none needs training. The one between its halves is on positions: those that are nearly
alike become one, their mean (token merging, Bolya et al. 2023, of all pairs), and all that follows is done once for
them. Another is on attention heads (`encoder_heads`). The other two are on channels, those that the scores are made of
and the neurons. What can be left out of them was found by calibration (`lean_fitting`), the same for all requests: to
ask each request would take a good part of what is saved. Their saliency is what is lost then, and where the threshold
is above it the half is lean: fewer weights are read, which alone saves time where a sequence is short.

Where the first layer looks up its queries, keys and values, it has no gate on the channels of scores: it would save
nothing.

An encoder with a bias for distances has no gates on positions: what has been joined is at no distance from the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.model import GateContext
from models.zoo.bert_shape import NAMINGS, BertShape, read_shape
from models.zoo.distances import DistanceBias
from models.zoo.encoder_heads import ActiveHeads, FittedHeads, HeadGate
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.lean_layers import NORMS, PRODUCTS, LayerWeights, LeanLayers
from models.zoo.text_profile import OtherWeights
from models.zoo.token_products import Embedded, TokenProducts

Array = NDArray[np.float32]
Ids = NDArray[np.int64]
DENSE: Mapping[str, float] = MappingProxyType({})
"""The thresholds of the dense model."""

FEWEST_JOINED = 17
"""Positions that are worth joining: a product of fewer takes as long as its weights take to be read."""

MOST_SPLIT = 1 << 20
"""Weights of a product whose parts for the tile unit are kept in fp32: of a small encoder they are little memory."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The last hidden states [m, hidden], and how many positions of the sequence each stands for [m]."""

    states: Array
    sizes: Array

    @property
    def mean(self) -> Array:
        """Over all positions, [hidden]."""
        mean: Array = self.sizes @ self.states / self.sizes.sum()
        return mean


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm's parameters, [hidden]."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Linear:
    """A packed product and its bias [outputs]."""

    packed: kernels.PackedMatrix
    bias: Array


@dataclass(frozen=True, slots=True)
class Attention:
    """A layer's first half, in the order of use: queries and keys with `head_size` channels a head, and values; and
    `half`, all of it in one call. It has a `gate` where heads were fitted, and a lean one has the saliency of what it
    lacks."""

    qkv: Linear
    output: Linear
    norm: Norm
    head_size: int
    half: kernels.EncoderAttention
    gate: HeadGate | None = None
    saliency: float = 0.0


@dataclass(frozen=True, slots=True)
class FeedForward:
    """Its second half."""

    up: Linear
    down: Linear
    norm: Norm
    half: kernels.EncoderFeedForward
    saliency: float = 0.0


@dataclass(frozen=True, slots=True)
class BertLayer:
    """Both halves."""

    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class GateNames:
    """What the gates of a layer, counted from 1, are called."""

    heads: str
    scores: str
    positions: str
    neurons: str

    @classmethod
    def of(cls, layer: int) -> Self:
        return cls(*(f"layer{layer}.{gate}" for gate in ("heads", "scores", "positions", "neurons")))


class Bert:
    """An encoder with its weights. Runs may overlap in several threads."""

    def __init__(
        self,
        folder: Path,
        lean: LeanLayers | None = None,
        datatype: str = "fp32",
        report: Callable[[float], None] = lambda done: None,
    ) -> None:
        """Reads a Hugging Face folder. With `lean` layers it has gates on channels. The products are in the `datatype`
        "fp32", "bf16" or "int8"; all else is in float32, but that attention may round to bf16 where the products round
        too. `report` is called with the share done, 0 to 1.

        Raises `FileNotFoundError`, or `ValueError` for another architecture, or for lean layers of another."""
        config = read_json(folder / "config.json")
        try:
            self.shape = read_shape(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        self._gates = tuple(GateNames.of(number + 1) for number in range(self.shape.layers))
        naming = NAMINGS[config["model_type"]]
        tensors = Tensors(weights_path(folder), prefix=naming.prefix)
        self.digest = tensors.digest
        words = (self.shape.vocabulary, self.shape.hidden)
        self._words = tensors.shaped("embeddings.word_embeddings.weight", words, "vocab_size, hidden_size")
        self._positions, self._second = _positions(tensors, self.shape)
        self._norm = _norm(tensors, "embeddings.LayerNorm", self.shape)
        self._distances = _distances(tensors, self.shape)
        self._tensors, self._naming, self._datatype = tensors, naming, datatype
        layers = range(self.shape.layers)
        if lean is not None and len(lean) != len(layers):
            raise OtherWeights(f"there are {len(lean)} lean layers, and the encoder has {len(layers)}")
        for i, part in enumerate(lean or ()):
            part.check(self.dense_weights(i), self.shape.heads)
        heads = [part.heads for part in lean] if lean else [None for _ in layers]
        packed = []
        for i in layers:
            packed.append(_layer(self.dense_weights(i), self.shape, datatype, heads[i]))
            report((i + 1) / (len(layers) + 1))
        self.layers = tuple(packed)
        self._first = self._looked_up() if self.shape.looks_up else None
        self.lean_layers = tuple(
            _layer(part.weights, self.shape, datatype, part.heads, part.score_saliency, part.neuron_saliency)
            for part in lean or ()
        )
        report(1.0)

    def dense_weights(self, number: int) -> LayerWeights:
        """Weight and bias of a layer's products and of its two norms, by their names in `Naming`."""
        tensors, naming, name = self._tensors, self._naming, f"{self._naming.layers}.{number}"
        hidden, neurons, fields = self.shape.hidden, self.shape.feed_forward, "hidden_size, intermediate_size"
        found: dict[str, tuple[Array, Array]] = {}
        for of in PRODUCTS:
            part = f"{name}.{getattr(naming, of)}"
            shape = (neurons if of == "up" else hidden, neurons if of == "down" else hidden)
            weight = tensors.shaped(f"{part}.weight", shape, fields)
            found[of] = (weight, tensors.shaped(f"{part}.bias", shape[:1], fields))
        norms = {of: _norm(tensors, f"{name}.{getattr(naming, of)}", self.shape) for of in NORMS}
        return found | {of: (norm.weight, norm.bias) for of, norm in norms.items()}

    def embed(self, ids: Ids, types: Ids | None = None) -> Array:
        """The first layer's input for token ids [n]: [n, hidden]. `types` [n] are 0 for the first text of a pair and 1
        for the second; without them there is one text."""
        return self._embedded(ids, types).states

    def _embedded(self, ids: Ids, types: Ids | None) -> Embedded:
        if len(ids) > self.shape.positions:
            raise ValueError(f"a sequence has at most {self.shape.positions} tokens, got {len(ids)}")
        rows, places = ids.astype(np.int32), np.arange(len(ids), dtype=np.int32)
        if types is not None:
            places[types == 1] += self._second
        norm = self._norm
        states, factors = kernels.embed(
            self._words, self._positions, rows, places, norm.weight, norm.bias, self.shape.epsilon
        )
        return Embedded(states, rows, places, factors)

    def _looked_up(self) -> TokenProducts:
        """The first layer's queries, keys and values."""
        norm, (weight, bias) = self._norm, joined(self.dense_weights(0), "query", "key", "value")
        return TokenProducts(self._words, self._positions, (norm.weight, norm.bias), weight, bias, self._datatype)

    @property
    def position_gates(self) -> tuple[str, ...]:
        """Their names, one to a layer; none where the encoder knows distances."""
        return () if self._distances is not None else tuple(names.positions for names in self._gates)

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of all that it has."""
        return (*self.position_gates, *self.head_gates, *self.channel_gates)

    @property
    def head_gates(self) -> tuple[str, ...]:
        """Their names, one to a layer; none where no heads were fitted."""
        gated = [layer.attention.gate is not None for layer in self.layers]
        return tuple(names.heads for names, has in zip(self._gates, gated, strict=True) if has)

    @property
    def channel_gates(self) -> dict[str, float]:
        """The saliency of what each gate on channels may leave out; none without lean layers."""
        gates: dict[str, float] = {}
        for i, (names, layer) in enumerate(zip(self._gates, self.lean_layers, strict=False)):
            if i > 0 or self._first is None:
                gates[names.scores] = layer.attention.saliency
            gates[names.neurons] = layer.feed_forward.saliency
        return gates

    def __call__(
        self,
        ids: Ids,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        types: Ids | None = None,
    ) -> Encoded:
        """Encodes a sequence of token ids [n], of two texts where there are `types`. A gate without a threshold, or
        with that of 0, is left out."""
        shape, done = self.shape, 0
        embedded = self._embedded(ids, types)
        x, sizes = embedded.states, np.ones(len(ids), np.float32)
        bias = self.distances(len(ids))
        for i, names in enumerate(self._gates):
            attention, feed_forward = self._halves(i, thresholds, context)
            positions = len(x)
            if positions < len(ids):  # attended to as often as it stands for a position: without this, cosines suffer
                bias = np.log(sizes)
            qkv, heads = None, self._active_heads(attention.gate, x, names.heads, thresholds, context)
            done += shape.attention_macs(positions, positions, attention.head_size, heads.count)
            if i == 0 and self._first:
                qkv = self._first(embedded)
                done -= shape.qkv_macs(positions, attention.head_size, heads.count)
            if attention.gate and thresholds.get(names.heads):
                done += shape.heads_gate_macs()
            own = bias if bias is None or bias.ndim == 1 or heads.ids is None else bias[heads.ids]
            x = kernels.attend_half(attention.half, x, qkv, own, heads.ids, heads.bias, context.threads)
            threshold = thresholds.get(names.positions)
            if threshold and positions >= FEWEST_JOINED:
                done += shape.gate_macs(positions)
                x, sizes = kernels.merge_positions(x, sizes, threshold)
            context.record(names.positions, positions, len(x))
            x = kernels.feed_forward_half(feed_forward.half, x, context.threads)
            done += shape.feed_forward_macs(len(x), feed_forward.up.packed.outputs)
        context.macs += shape.macs(len(ids))
        context.macs_skipped += max(0, shape.macs(len(ids)) - done)
        return Encoded(x, sizes)

    def _halves(
        self, number: int, thresholds: Mapping[str, float], context: GateContext
    ) -> tuple[Attention, FeedForward]:
        """Those of a layer, dense or lean."""
        dense, names = self.layers[number], self._gates[number]
        attention, feed_forward = dense.attention, dense.feed_forward
        if not self.lean_layers:
            return attention, feed_forward
        lean, size, neurons = self.lean_layers[number], self.shape.head_size, self.shape.feed_forward
        if number > 0 or self._first is None:
            if thresholds.get(names.scores, 0.0) > lean.attention.saliency:
                attention = lean.attention
            context.record(names.scores, size, attention.head_size)
        if thresholds.get(names.neurons, 0.0) > lean.feed_forward.saliency:
            feed_forward = lean.feed_forward
        context.record(names.neurons, neurons, feed_forward.up.packed.outputs)
        return attention, feed_forward

    def _active_heads(
        self, gate: HeadGate | None, x: Array, name: str, thresholds: Mapping[str, float], context: GateContext
    ) -> ActiveHeads:
        if gate is None:
            return ActiveHeads(self.shape.heads)
        heads = gate(x, thresholds.get(name, 0.0))
        context.record(name, self.shape.heads, heads.count)
        return heads

    def distances(self, positions: int) -> Array | None:
        """What the scores of so many positions get for how far apart they are; None where the encoder has no bias."""
        return None if self._distances is None else self._distances(positions)

    def heads(self, qkv: Array, head_size: int) -> Array:
        """What the heads of a layer give for a text, side by side: [positions, hidden], from its queries, keys and
        values."""
        scored = self.shape.heads * head_size
        queries, keys, values = qkv[:, :scored], qkv[:, scored : 2 * scored], qkv[:, 2 * scored :]
        bias, scale = self.distances(len(qkv)), self.shape.head_size**-0.5
        return kernels.attention(queries, keys, values, head_size, bias=bias, scale=scale, datatype=self._datatype)

    def normalised(self, x: Array, norm: Norm, residual: Array | None = None) -> Array:
        """The norm of x, or of its sum with the residual."""
        return kernels.layer_norm(x, norm.weight, norm.bias, self.shape.epsilon, residual=residual)


def product(x: Array, linear: Linear, threads: kernels.Threads | None = None, activation: str = "none") -> Array:
    """activation(weight @ x + bias), of each row of x."""
    return kernels.gated_matmul(x, linear.packed, shift=linear.bias, activation=activation, threads=threads)


def _positions(tensors: Tensors, shape: BertShape) -> tuple[Array, int]:
    """The table of positions with the type of their text in it; and behind which of its rows those of a second text
    are: 0 where there is one type, or none."""
    rows = (shape.first_position + shape.positions, shape.hidden)
    table = tensors.shaped("embeddings.position_embeddings.weight", rows, "max_position_embeddings, hidden_size")
    positions, name = table[shape.first_position :], "embeddings.token_type_embeddings.weight"
    if name not in tensors:
        return positions, 0
    kinds = max(1, tensors[name].size // shape.hidden)
    types = tensors.shaped(name, (kinds, shape.hidden), "hidden_size")[:2]
    return np.concatenate([positions + kind for kind in types]), len(positions) if len(types) > 1 else 0


def _distances(tensors: Tensors, shape: BertShape) -> DistanceBias | None:
    if not shape.distances:
        return None
    name, fields = "encoder.relative_attention_bias.weight", "relative_attention_num_buckets, num_attention_heads"
    return DistanceBias(tensors.shaped(name, (shape.distances, shape.heads), fields), shape.positions)


def _norm(tensors: Tensors, name: str, shape: BertShape) -> Norm:
    old = f"{name}.gamma" in tensors  # what the first checkpoints call them
    parts = ("gamma", "beta") if old else ("weight", "bias")
    return Norm(*(tensors.shaped(f"{name}.{part}", (shape.hidden,), "hidden_size") for part in parts))


def joined(weights: LayerWeights, *names: str) -> tuple[Array, Array]:
    """Weight and bias of the products of these names, their outputs side by side."""
    weight, bias = (np.concatenate(parts) for parts in zip(*(weights[name] for name in names), strict=True))
    return weight, bias


def pack(weights: LayerWeights, datatype: str, *names: str) -> Linear:
    """The products of these names as one, their outputs side by side."""
    weight, bias = joined(weights, *names)
    return Linear(kernels.pack_matrix(weight, datatype, split=weight.size <= MOST_SPLIT), bias)


def _layer(
    weights: LayerWeights,
    shape: BertShape,
    datatype: str,
    heads: FittedHeads | None,
    score_saliency: float = 0.0,
    neuron_saliency: float = 0.0,
) -> BertLayer:
    # In this order: weights are fetched ahead from the layer that was packed next.
    qkv, output = pack(weights, datatype, "query", "key", "value"), pack(weights, datatype, "output")
    norm, head_size = Norm(*weights["attention_norm"]), len(weights["query"][0]) // shape.heads
    attention = kernels.encoder_attention(
        (qkv.packed, qkv.bias),
        (output.packed, output.bias),
        (norm.weight, norm.bias),
        heads=shape.heads,
        head_size=head_size,
        scale=shape.head_size**-0.5,
        epsilon=shape.epsilon,
        datatype=datatype,
    )
    gate = None if heads is None else HeadGate.of(heads, *weights["output"])
    up, down, last = pack(weights, datatype, "up"), pack(weights, datatype, "down"), Norm(*weights["norm"])
    feed_forward = kernels.encoder_feed_forward(
        (up.packed, up.bias), (down.packed, down.bias), (last.weight, last.bias), epsilon=shape.epsilon
    )
    return BertLayer(
        Attention(qkv, output, norm, head_size, attention, gate, score_saliency),
        FeedForward(up, down, last, feed_forward, neuron_saliency),
    )
