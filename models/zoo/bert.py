"""BERT (Devlin et al. 2019), the encoder: token ids of one sequence in, hidden states out, on our kernels; and the
encoders that are made like it, which `bert_shape` tells apart.

    x = norm(words[ids] + positions + types)
    for each layer:
        x = norm(x + output(attention(qkv(x))))
        x = norm(x + down(gelu(up(x))))

One sequence at a time: there is no padding, and no mask. Queries, keys and values are one product.

Each layer has two gates, both on measured saliency and without training. The one between its halves is on positions:
those that are nearly alike become one, their mean (token merging, Bolya et al. 2023), and all that follows is done once
for both. The other is on the neurons: what one adds beyond its calibrated mean (TEAL, Liu et al. 2024); a skipped one
is taken to be its mean. An encoder with a bias for distances has no gates on positions: what has been joined is at no
distance from the others. Calibration uses those on neurons only there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.model import GateContext
from models.zoo.bert_shape import NAMINGS, BertShape, Naming, read_shape
from models.zoo.block_gate import BlockGate
from models.zoo.distances import DistanceBias
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.text_profile import OtherWeights
from models.zoo.tuned_parts import MATRICES, TunedLayer, TunedParts

Array = NDArray[np.float32]
Ids = NDArray[np.int64]
Watch = Callable[[int, Array, Array], None]
DENSE: Mapping[str, float] = MappingProxyType({})
"""The thresholds of the dense model."""


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
class NeuronGate:
    """What a gate on a layer's neurons needs: their calibrated `means` and the `norms` of their columns of the second
    product, [neurons], and that product's bias with the means folded in, [hidden]."""

    means: Array
    norms: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class BertLayer:
    """One layer's weights, in the order of their use."""

    qkv: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    norm: Norm
    gate: "NeuronGate | None"
    blocks: BlockGate | None = None


@dataclass(frozen=True, slots=True)
class GateNames:
    """What the gates of a layer, counted from 1, are called."""

    positions: str
    neurons: str
    blocks: str

    @classmethod
    def of(cls, layer: int) -> Self:
        return cls(*(f"layer{layer}.{gate}" for gate in ("positions", "neurons", "blocks")))


class Bert:
    """An encoder with its weights. Runs may overlap in several threads."""

    def __init__(
        self,
        folder: Path,
        neuron_means: Sequence[Array] | None = None,
        datatype: str = "fp32",
        tuned: TunedParts | None = None,
    ) -> None:
        """Reads a Hugging Face folder. With the calibrated means of each layer's neurons it has gates on them; with
        `tuned` parts it has gates on blocks of neurons, and a second set of layers for when one of those is closed. The
        products are in the `datatype` "fp32", "bf16" or "int8"; all else is in float32, but that attention may round to
        bf16 where the products round too.

        Raises `FileNotFoundError`, or `ValueError` for another architecture, or for means or parts of another."""
        config = read_json(folder / "config.json")
        try:
            self.shape = read_shape(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        self._gates = tuple(GateNames.of(number + 1) for number in range(self.shape.layers))
        naming = NAMINGS[config["model_type"]]
        tensors = Tensors(weights_path(folder), prefix=naming.prefix)
        self.digest = tensors.digest
        self._words = tensors["embeddings.word_embeddings.weight"]
        wanted = (self.shape.vocabulary, self.shape.hidden)
        if self._words.shape != wanted:
            raise ValueError(
                f"{folder}: the table of words is {list(self._words.shape)}; config.json says {list(wanted)} "
                "(vocab_size, hidden_size)"
            )
        self._positions, self._second_type = _positions(tensors, self.shape)
        self._norm = _norm(tensors, "embeddings.LayerNorm")
        self._distances = _distances(tensors, self.shape)
        self._tensors, self._naming, self._datatype = tensors, naming, datatype
        means = [None] * self.shape.layers if neuron_means is None else neuron_means
        if len(means) != self.shape.layers:
            raise OtherWeights(f"there are means of {len(means)} layers, and the encoder has {self.shape.layers}")
        self.layers = tuple(_layer(tensors, naming, i, means[i], datatype) for i in range(self.shape.layers))
        if tuned is not None and len(tuned) != self.shape.layers:
            raise OtherWeights(f"there are tuned parts of {len(tuned)} layers, and the encoder has {self.shape.layers}")
        parts = enumerate(tuned or ())
        self.tuned_layers = tuple(_tuned_layer(self.dense_weights(i), part, datatype) for i, part in parts)

    def dense_weights(self, number: int) -> dict[str, tuple[Array, Array]]:
        """Weight and bias of a layer's products, by their names in `MATRICES`, and of its two norms."""
        tensors, naming, name = self._tensors, self._naming, f"{self._naming.layers}.{number}"
        parts = {
            "qkv": (naming.query, naming.key, naming.value),
            "output": (naming.output,),
            "up": (naming.up,),
            "down": (naming.down,),
        }
        found = {of: _matrix(tensors, *(f"{name}.{part}" for part in named)) for of, named in parts.items()}
        norms = {"attention_norm": naming.attention_norm, "norm": naming.norm}
        for of, named_norm in norms.items():
            norm = _norm(tensors, f"{name}.{named_norm}")
            found[of] = (norm.weight, norm.bias)
        return found

    def embed(self, ids: Ids, types: Ids | None = None) -> Array:
        """The first layer's input for token ids [n]: [n, hidden]. `types` [n] are 0 for the first text of a pair and 1
        for the second; without them there is one text."""
        summed = self._words[ids] + self._positions[: len(ids)]
        if types is not None and self._second_type is not None:
            summed[types == 1] += self._second_type
        return self._normalised(summed, self._norm)

    @property
    def position_gates(self) -> tuple[str, ...]:
        """Their names, one to a layer; none where the encoder knows distances."""
        return () if self._distances is not None else tuple(names.positions for names in self._gates)

    @property
    def neuron_gates(self) -> tuple[str, ...]:
        """Their names, one to a layer."""
        return tuple(names.neurons for names in self._gates)

    @property
    def block_gates(self) -> tuple[str, ...]:
        """Their names, one to a layer; none where nothing was tuned."""
        return tuple(names.blocks for names in self._gates[: len(self.tuned_layers)])

    def __call__(
        self,
        ids: Ids,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        watch: Watch | None = None,
        types: Ids | None = None,
    ) -> Encoded:
        """Encodes a sequence of token ids [n], of two texts where there are `types`. A gate without a threshold, or
        with that of 0, is left out. `watch` is told what the second half of each layer gets [positions, hidden], and
        its neurons [positions, neurons], where they are not gated by blocks."""
        shape, done = self.shape, 0
        x, sizes = self.embed(ids, types), np.ones(len(ids), np.float32)
        bias = None if self._distances is None else self._distances(len(ids))
        tuned = any(thresholds.get(gate) for gate in self.block_gates)
        for i, layer in enumerate(self.tuned_layers if tuned else self.layers):
            qkv = _product(x, layer.qkv)
            queries, keys, values = (qkv[:, at : at + shape.hidden] for at in range(0, 3 * shape.hidden, shape.hidden))
            if len(x) < len(ids):  # attended to as often as it stands for a position: without this, cosines suffer
                bias = np.log(sizes)
            heads = kernels.attention(queries, keys, values, shape.head_size, bias=bias, datatype=self._datatype)
            done += shape.attention_macs(len(x), len(x))
            x = self._normalised(_product(heads, layer.output), layer.attention_norm, residual=x)
            gate, positions = self._gates[i].positions, len(x)
            if threshold := thresholds.get(gate):
                done += shape.gate_macs(positions)
                x, sizes = kernels.merge_positions(x, sizes, threshold)
            context.record(gate, positions, len(x))
            if layer.blocks is not None:
                threshold = thresholds.get(self._gates[i].blocks, 0.0)
                returned, active = layer.blocks.feed_forward(
                    x, layer.up.packed, layer.up.bias, layer.down.packed, threshold
                )
                done += 2 * len(x) * shape.hidden * active + layer.blocks.macs
                context.record(self._gates[i].blocks, shape.feed_forward, active)
            else:
                neurons = _product(x, layer.up, activation="gelu")
                if watch is not None:
                    watch(i, x, neurons)
                threshold = thresholds.get(self._gates[i].neurons)
                returned, active = _return(neurons, layer, threshold)
                done += len(x) * shape.hidden * (shape.feed_forward + active)
                if layer.gate is not None and threshold is not None:
                    context.record(self._gates[i].neurons, shape.feed_forward, active)
            x = self._normalised(returned, layer.norm, residual=x)
        context.macs += shape.macs(len(ids))
        context.macs_skipped += max(0, shape.macs(len(ids)) - done)
        return Encoded(x, sizes)

    def _normalised(self, x: Array, norm: Norm, residual: Array | None = None) -> Array:
        return kernels.layer_norm(x, norm.weight, norm.bias, self.shape.epsilon, residual=residual)


def _return(neurons: Array, layer: BertLayer, threshold: float | None) -> tuple[Array, int]:
    """The second product, and how many neurons were active."""
    if not threshold or layer.gate is None:
        return _product(neurons, layer.down), neurons.shape[1]
    active, values = kernels.select_channels(neurons, layer.gate.means, layer.gate.norms, threshold)
    return kernels.gated_matmul(values, layer.down.packed, inputs=active, shift=layer.gate.bias), len(active)


def _product(x: Array, linear: Linear, activation: str = "none") -> Array:
    return kernels.gated_matmul(x, linear.packed, shift=linear.bias, activation=activation)


def _positions(tensors: Tensors, shape: BertShape) -> tuple[Array, Array | None]:
    """The table of positions with the type of a first text in it, and what the second text's type adds to it, where
    there are two types."""
    positions = tensors["embeddings.position_embeddings.weight"][shape.first_position :]
    if "embeddings.token_type_embeddings.weight" not in tensors:
        return positions, None
    types = tensors["embeddings.token_type_embeddings.weight"]
    return positions + types[0], types[1] - types[0] if len(types) > 1 else None


def _distances(tensors: Tensors, shape: BertShape) -> DistanceBias | None:
    if not shape.distances:
        return None
    return DistanceBias(tensors["encoder.relative_attention_bias.weight"], shape.positions)


def _norm(tensors: Tensors, name: str) -> Norm:
    old = f"{name}.gamma" in tensors  # what the first checkpoints call them
    return Norm(*(tensors[f"{name}.{part}"] for part in (("gamma", "beta") if old else ("weight", "bias"))))


def _matrix(tensors: Tensors, *names: str) -> tuple[Array, Array]:
    """Weight and bias of the linear layers of these names as one, their outputs side by side."""
    weight, bias = (np.concatenate([tensors[f"{name}.{part}"] for name in names]) for part in ("weight", "bias"))
    return weight, bias


def _linear(tensors: Tensors, datatype: str, *names: str) -> Linear:
    weight, bias = _matrix(tensors, *names)
    return Linear(kernels.pack_matrix(weight, datatype), bias)


def _tuned_layer(dense: Mapping[str, tuple[Array, Array]], part: TunedLayer, datatype: str) -> BertLayer:
    """A dense layer with its tuned parts folded in, its neurons in the order of their blocks."""
    if sorted(part.order) != list(range(len(dense["up"][0]))):
        raise OtherWeights(
            f"there are tuned parts of {len(part.order)} neurons, and the layer has {len(dense['up'][0])}"
        )
    weights = {name: dense[name][0] for name in MATRICES}
    weights["up"], weights["down"] = weights["up"][part.order], weights["down"][:, part.order]
    qkv, output, up, down = (
        Linear(kernels.pack_matrix(weights[name] + left @ right, datatype), bias)
        for name, (left, right), bias in zip(MATRICES, part.corrections, part.biases, strict=True)
    )
    return BertLayer(
        qkv,
        output,
        Norm(*part.attention_norm),
        up,
        down,
        Norm(*part.norm),
        gate=None,
        blocks=BlockGate(part.predictor, part.offset, part.skipped, part.biases[3], len(part.order)),
    )


def _layer(tensors: Tensors, naming: Naming, number: int, means: Array | None, datatype: str) -> BertLayer:
    name = f"{naming.layers}.{number}"
    return BertLayer(
        qkv=_linear(tensors, datatype, *(f"{name}.{part}" for part in (naming.query, naming.key, naming.value))),
        output=_linear(tensors, datatype, f"{name}.{naming.output}"),
        attention_norm=_norm(tensors, f"{name}.{naming.attention_norm}"),
        up=_linear(tensors, datatype, f"{name}.{naming.up}"),
        down=_linear(tensors, datatype, f"{name}.{naming.down}"),
        norm=_norm(tensors, f"{name}.{naming.norm}"),
        gate=None if means is None else _neuron_gate(tensors, f"{name}.{naming.down}", means),
    )


def _neuron_gate(tensors: Tensors, name: str, means: Array) -> NeuronGate:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    if means.shape != weight.shape[1:]:
        raise OtherWeights(f"{name} has {weight.shape[1]} inputs, and there are means of {len(means)}")
    return NeuronGate(means, np.linalg.norm(weight, axis=0), bias + weight @ means)
