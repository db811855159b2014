"""The layers of Whisper, of the encoder and the decoder, and how they are made of a model's tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.model import GateContext
from models.zoo.whisper_heads import ActiveHeads, CalibratedHeads, Channels, HeadGate

Array = NDArray[np.float32]
Watch = Callable[[str, Array], None]

SAMPLED = 8
"""Every so manieth position of the encoder tells which neurons are needed."""

EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm's parameters, [hidden]."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        return kernels.layer_norm(x, self.weight, self.bias, EPSILON)

    def before(self) -> tuple[Array, Array, float]:
        """As the `norm` of a product, which normalises what it multiplies."""
        return self.weight, self.bias, EPSILON


@dataclass(frozen=True, slots=True)
class Linear:
    """A packed product and its bias [outputs]."""

    packed: kernels.PackedMatrix
    bias: Array

    def __call__(
        self,
        x: Array,
        activation: str = "none",
        outputs: Channels | None = None,
        residual: Array | None = None,
        norm: Norm | None = None,
        threads: kernels.Threads | None = None,
    ) -> Array:
        return kernels.gated_matmul(
            x,
            self.packed,
            outputs=outputs,
            shift=self.bias,
            activation=activation,
            residual=residual,
            norm=None if norm is None else norm.before(),
            threads=threads,
        )


@dataclass(frozen=True, slots=True)
class NeuronGate:
    """The neurons' calibrated `means` and the `norms` of their columns of the second product, [neurons], and that
    product's bias with the means folded in, [hidden]."""

    means: Array
    norms: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The neurons of a layer, between two products; `name` is that of their gate."""

    name: str
    norm: Norm
    up: Linear
    down: Linear
    gate: NeuronGate | None

    def __call__(
        self, x: Array, context: GateContext, thresholds: Mapping[str, float], watch: Watch | None
    ) -> tuple[Array, int]:
        """Adds to x what the layer makes of it, in place, and returns it and how many neurons were active."""
        neurons, threshold = self.up.packed.outputs, thresholds.get(self.name, 0.0)
        if watch is not None:
            watch(self.name, self.up(x, "gelu", norm=self.norm))
        if self.gate is None or not threshold:
            if self.gate is not None:
                context.record(self.name, neurons, neurons)
            return self._summed(x, self.down.bias, None, context.threads), neurons
        sample = self.up(x[::SAMPLED], "gelu", norm=self.norm)
        active, _ = kernels.select_channels(sample, self.gate.means, self.gate.norms, threshold)
        context.record(self.name, neurons, len(active), active)
        mean = self.gate.means[active][None]
        bias = self.gate.bias - kernels.gated_matmul(mean, self.down.packed, inputs=active)[0]
        return self._summed(x, bias, active, context.threads), len(active)

    def _summed(self, x: Array, bias: Array, active: Channels | None, threads: kernels.Threads | None) -> Array:
        """x and the sums of the active neurons, of all where that is None, in place of x: its lines are near then."""
        return kernels.feed_forward(
            x,
            self.up.packed,
            self.down.packed,
            neurons=active,
            shift=self.up.bias,
            activation="gelu",
            bias=bias,
            residual=x,
            norm=self.norm.before(),
            out=x,
            threads=threads,
        )


def mixed_in(
    x: Array, attended: Array, output: HeadGate, active: ActiveHeads, threads: kernels.Threads | None = None
) -> Array:
    """x and what the active heads, `attended`, add to it, in place of x."""
    return kernels.gated_matmul(
        attended, output.packed, inputs=active.channels, shift=active.bias, residual=x, out=x, threads=threads
    )


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """One layer's weights, in the order of their use."""

    norm: Norm
    qkv: Linear
    output: HeadGate
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One layer's weights, in the order of their use; those of `heard` attend to the encoder."""

    norm: Norm
    qkv: Linear
    output: HeadGate
    heard_norm: Norm
    heard_query: Linear
    heard_output: HeadGate
    heard_keys_values: Linear
    feed_forward: FeedForward


def gate_name(part: str, layer: int) -> str:
    """Of the gate on a layer's neurons; `part` is "encoder" or "decoder"."""
    return f"{part}{layer + 1}.neurons"


def gates_of(encoder_layers: int, decoder_layers: int) -> tuple[str, ...]:
    """The names of the gates on neurons, the encoder's first."""
    layers = (("encoder", encoder_layers), ("decoder", decoder_layers))
    return tuple(gate_name(part, i) for part, count in layers for i in range(count))


def attentions_of(encoder_layers: int, decoder_layers: int) -> tuple[str, ...]:
    """The names of all attentions: the encoder's, then of each layer of the decoder that to what was said and that to
    what was heard."""
    encoder = (f"encoder.layers.{i}.self_attn" for i in range(encoder_layers))
    decoder = (f"decoder.layers.{i}.{to}" for i in range(decoder_layers) for to in ("self_attn", "encoder_attn"))
    return (*encoder, *decoder)


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers from a model's `tensors`, with the `means` of their neurons by the names of their gates and what is
    calibrated of their `heads` by the names of attentions, where there is some."""

    tensors: Mapping[str, Array]
    means: Mapping[str, Array]
    heads: Mapping[str, CalibratedHeads]
    datatype: str

    def table(self, name: str, *shape: int) -> Array:
        found = self.tensors[name]
        if found.shape != shape:
            raise ValueError(f"{name}: must have the shape {list(shape)}, got {list(found.shape)}")
        return found

    def norm(self, name: str) -> Norm:
        return Norm(self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def linear(self, *names: str) -> Linear:
        """The linear layers of these names as one, their outputs side by side; keys have no bias."""
        weights = [self.tensors[f"{name}.weight"] for name in names]
        biases = [
            np.zeros(len(weight), np.float32) if name.endswith("k_proj") else self.tensors[f"{name}.bias"]
            for name, weight in zip(names, weights, strict=True)
        ]
        return Linear(kernels.pack_matrix(np.concatenate(weights), self.datatype), np.concatenate(biases))

    def convolution(self, name: str) -> Linear:
        weight = self.tensors[f"{name}.weight"]  # [outputs, inputs, taps]
        rows = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
        return Linear(kernels.pack_matrix(rows, self.datatype), self.tensors[f"{name}.bias"])

    def attention(self, name: str, heads: int) -> tuple[Norm, Linear, HeadGate]:
        attending = f"{name}.self_attn"
        qkv = self.linear(*(f"{attending}.{part}_proj" for part in "qkv"))
        return self.norm(f"{name}.self_attn_layer_norm"), qkv, self.output(attending, heads)

    def output(self, attending: str, heads: int) -> HeadGate:
        linear, calibrated = self.linear(f"{attending}.out_proj"), self.heads.get(attending)
        if calibrated is not None and (len(calibrated.means), len(calibrated.saliency)) != (len(linear.bias), heads):
            raise ValueError(
                f"{attending} has {heads} heads of {len(linear.bias)} channels, and there is a calibration of "
                f"{len(calibrated.saliency)} of {len(calibrated.means)}"
            )
        return HeadGate(heads, linear.packed, linear.bias, calibrated)

    def feed_forward(self, name: str, gate: str) -> FeedForward:
        norm, up, down = self.norm(f"{name}.final_layer_norm"), self.linear(f"{name}.fc1"), self.linear(f"{name}.fc2")
        return FeedForward(gate, norm, up, down, self.neuron_gate(f"{name}.fc2", gate))

    def neuron_gate(self, name: str, gate: str) -> NeuronGate | None:
        means = self.means.get(gate)
        if means is None:
            return None
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        if means.shape != weight.shape[1:]:
            raise ValueError(f"{name} has {weight.shape[1]} inputs, and there are means of {len(means)}")
        return NeuronGate(means, np.linalg.norm(weight, axis=0), bias + weight @ means)

    def encoder_layer(self, i: int, heads: int) -> EncoderLayer:
        name = f"encoder.layers.{i}"
        return EncoderLayer(*self.attention(name, heads), self.feed_forward(name, gate_name("encoder", i)))

    def decoder_layer(self, i: int, heads: int) -> DecoderLayer:
        name = f"decoder.layers.{i}"
        attending = f"{name}.encoder_attn"
        return DecoderLayer(
            *self.attention(name, heads),
            self.norm(f"{attending}_layer_norm"),
            self.linear(f"{attending}.q_proj"),
            self.output(attending, heads),
            self.linear(f"{attending}.k_proj", f"{attending}.v_proj"),
            self.feed_forward(name, gate_name("decoder", i)),
        )
