"""Whisper (Radford et al. 2022): a log-mel spectrum in, the logits of the next token out, on our kernels.

    encoder:
        x = gelu(convolution(gelu(convolution(spectrum)), stride 2)) + positions
        for each layer:
            x = x + output(attention(qkv(norm(x))))
            x = x + down(gelu(up(norm(x))))
        heard = norm(x)
    decoder, for each token:
        x = words[token] + positions
        for each layer:
            x = x + output(causal attention(qkv(norm(x))))
            x = x + output(attention(query(norm(x)), the layer's keys and values of heard))
            x = x + down(gelu(up(norm(x))))
        logits = words · norm(x)

One window at a time. The keys and values of what was heard are computed once, those of what was said are kept.

Two kinds of gate, both without training. The one on frames: most of a window of 30 s is the silence that follows a
short clip, and a frame past the speech matters the less the further it is from it. Those on the neurons of each layer:
what one adds beyond its calibrated mean (TEAL, Liu et al. 2024), of which a skipped one contributes the mean. In the
encoder, where a request has many positions, a few of them tell which neurons all of them need, so that neither product
is done for the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models import kernels
from models.gating.neuron_means import NeuronMeans
from models.model import GateContext
from models.zoo.whisper_shape import TAPS, WhisperShape

Array = NDArray[np.float32]
Watch = Callable[[str, Array], None]
DENSE: Mapping[str, float] = MappingProxyType({})
"""The thresholds of the dense model."""

FRAMES_GATE = "frames"
SAMPLED = 8
"""Every so manieth position of the encoder tells which neurons are needed."""
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm's parameters, [hidden]."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        return kernels.layer_norm(x, self.weight, self.bias, _EPSILON)


@dataclass(frozen=True, slots=True)
class Linear:
    """A packed product and its bias [outputs]."""

    packed: kernels.PackedMatrix
    bias: Array

    def __call__(self, x: Array, activation: str = "none", residual: Array | None = None) -> Array:
        return kernels.gated_matmul(x, self.packed, shift=self.bias, activation=activation, residual=residual)


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
        """x and what the layer adds, and how many neurons were active."""
        rows, neurons, threshold = self.norm(x), self.up.packed.outputs, thresholds.get(self.name, 0.0)
        if watch is not None:
            watch(self.name, self.up(rows, "gelu"))
        if self.gate is None or not threshold:
            if self.gate is not None:
                context.record(self.name, neurons, neurons)
            return self.down(self.up(rows, "gelu"), residual=x), neurons
        few = len(rows) <= SAMPLED
        sample = self.up(rows if few else np.ascontiguousarray(rows[::SAMPLED]), "gelu")
        active, values = kernels.select_channels(sample, self.gate.means, self.gate.norms, threshold)
        context.record(self.name, neurons, len(active), active)
        bias = self.gate.bias
        if not few:
            values = kernels.gated_matmul(rows, self.up.packed, outputs=active, shift=self.up.bias, activation="gelu")
            mean = self.gate.means[active][None]
            bias = bias - kernels.gated_matmul(mean, self.down.packed, inputs=active)[0]
        return kernels.gated_matmul(values, self.down.packed, inputs=active, shift=bias, residual=x), len(active)


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """One layer's weights, in the order of their use."""

    norm: Norm
    qkv: Linear
    output: Linear
    feed_forward: FeedForward


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One layer's weights, in the order of their use; the first three of `heard` attend to the encoder."""

    norm: Norm
    qkv: Linear
    output: Linear
    heard_norm: Norm
    heard_query: Linear
    heard_output: Linear
    heard_keys_values: Linear
    feed_forward: FeedForward


@dataclass(slots=True)
class Decoding:
    """What one window's decoder remembers: per layer the keys and values of what was heard [positions, hidden] and
    of what was said, of which the first `tokens` rows of [context, hidden] are there."""

    heard: list[tuple[Array, Array]]
    said: list[tuple[Array, Array]]
    tokens: int = 0


class Whisper:
    """An encoder and a decoder with their weights. Runs may overlap in several threads."""

    def __init__(
        self,
        shape: WhisperShape,
        tensors: Mapping[str, Array],
        means: NeuronMeans | None = None,
        datatype: str = "fp32",
    ) -> None:
        """`tensors` are named as Hugging Face does it, without "model.". With the calibrated means of all layers'
        neurons, the encoder's first, it has gates on them. The products are in the `datatype` "fp32", "bf16" or "int8",
        all else is in float32. Raises `ValueError` for tensors or means of another shape."""
        self.shape = shape
        names = self.neuron_gates
        if means is not None and len(means) != len(names):
            raise ValueError(f"there are means of {len(means)} layers, and the model has {len(names)}")
        means_of = dict(zip(names, means, strict=True)) if means is not None else {}
        make = _Layers(tensors, means_of, datatype)
        self._stem = tuple(make.convolution(f"encoder.conv{i}") for i in (1, 2))
        self._positions = make.table("encoder.embed_positions.weight", shape.positions, shape.hidden)
        self._encoder = [make.encoder_layer(i) for i in range(shape.encoder_layers)]
        self._encoder_norm = make.norm("encoder.layer_norm")
        self._words = make.table("decoder.embed_tokens.weight", shape.vocabulary, shape.hidden)
        self._places = make.table("decoder.embed_positions.weight", shape.context, shape.hidden)
        self._decoder = [make.decoder_layer(i) for i in range(shape.decoder_layers)]
        self._decoder_norm = make.norm("decoder.layer_norm")
        self._to_words = kernels.pack_matrix(self._words, datatype)

    @property
    def neuron_gates(self) -> tuple[str, ...]:
        """Their names, the encoder's first."""
        layers = (("encoder", self.shape.encoder_layers), ("decoder", self.shape.decoder_layers))
        return tuple(gate_name(part, i) for part, count in layers for i in range(count))

    def gate(self, name: str) -> NeuronGate | None:
        """That of a layer, by its name."""
        parts = [layer.feed_forward for layer in self._encoder] + [layer.feed_forward for layer in self._decoder]
        return parts[self.neuron_gates.index(name)].gate

    def encode(
        self,
        spectrum: Array,
        speech: int,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        watch: Watch | None = None,
    ) -> Array:
        """The states [positions, hidden] of a window's spectrum [frames, mels] whose frames from `speech` on are none.
        `watch` is told the neurons of each layer, [positions, neurons]."""
        shape = self.shape
        if spectrum.shape != (shape.frames, shape.mels):
            raise ValueError(f"spectrum: must be {[shape.frames, shape.mels]}, got {list(spectrum.shape)}")
        kept = kept_frames(speech, shape.frames, thresholds.get(FRAMES_GATE, 0.0))
        context.record(FRAMES_GATE, shape.frames, kept)
        positions = -(-kept // 2)
        # One frame more, for the convolutions' last taps to see what is there and not the zeros past a window's end.
        x = _convolve(spectrum[: 2 * positions + 1], self._stem[0], 1)
        x = _convolve(x, self._stem[1], 2)[:positions] + self._positions[:positions]
        neurons = []
        for layer in self._encoder:
            queries, keys, values = np.split(layer.qkv(layer.norm(x)), 3, axis=1)
            heads = kernels.attention(queries, keys, values, shape.hidden // shape.encoder_heads)
            x = layer.output(heads, residual=x)
            x, active = layer.feed_forward(x, context, thresholds, watch)
            neurons.append(active if active == shape.encoder_feed_forward else active + active // SAMPLED)
        context.macs += shape.encoder_macs
        context.macs_skipped += max(0, shape.encoder_macs - shape.encoded_macs(positions, neurons))
        return self._encoder_norm(x)

    def listen(self, states: Array, context: GateContext) -> Decoding:
        """A decoder that has heard the encoder's states and said nothing yet."""
        shape = self.shape
        context.macs += shape.listening_macs(shape.positions)
        context.macs_skipped += shape.listening_macs(shape.positions - len(states))
        heard = []
        for layer in self._decoder:
            keys, values = np.split(layer.heard_keys_values(states), 2, axis=1)
            heard.append((keys, values))
        size = (shape.context, shape.hidden)
        return Decoding(heard, [(np.empty(size, np.float32), np.empty(size, np.float32)) for _ in self._decoder])

    def step(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
    ) -> Array:
        """Says these tokens after those before, and gives the logits [vocabulary] of the next. Raises `ValueError` past
        the context."""
        x = self._say(tokens, decoding, context, thresholds, None)
        self._count_words(1, context)
        logits: Array = kernels.gated_matmul(self._decoder_norm(x[-1:]), self._to_words)[0]
        return logits

    def score(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        watch: Watch | None = None,
    ) -> Array:
        """The same, with the logits [tokens, vocabulary] of what follows each of them."""
        x = self._say(tokens, decoding, context, thresholds, watch)
        self._count_words(len(tokens), context)
        return kernels.gated_matmul(self._decoder_norm(x), self._to_words)

    def _say(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float],
        watch: Watch | None,
    ) -> Array:
        """The last layer's output for each token, [tokens, hidden]."""
        shape, start, end = self.shape, decoding.tokens, decoding.tokens + len(tokens)
        if end > shape.context:
            raise ValueError(f"tokens: the decoder looks at {shape.context} at most, got {end}")
        x = self._words[list(tokens)] + self._places[start:end]
        size, neurons = shape.hidden // shape.decoder_heads, 0
        for layer, said, heard in zip(self._decoder, decoding.said, decoding.heard, strict=True):
            queries, keys, values = np.split(layer.qkv(layer.norm(x)), 3, axis=1)
            said[0][start:end], said[1][start:end] = keys, values
            mixed = kernels.attention(queries, said[0][:end], said[1][:end], size, causal=True)
            x = layer.output(mixed, residual=x)
            mixed = kernels.attention(layer.heard_query(layer.heard_norm(x)), *heard, size)
            x = layer.heard_output(mixed, residual=x)
            x, active = layer.feed_forward(x, context, thresholds, watch)
            neurons += active
        decoding.tokens = end
        all_neurons, positions = shape.decoder_layers * shape.decoder_feed_forward, len(decoding.heard[0][0])
        dense = shape.step_macs(len(tokens), end, shape.positions, all_neurons)
        done = shape.step_macs(len(tokens), end, positions, (neurons + all_neurons) // 2)
        context.macs += dense
        context.macs_skipped += max(0, dense - done)
        return x

    def _count_words(self, tokens: int, context: GateContext) -> None:
        context.macs += tokens * self.shape.word_macs


def gate_name(part: str, layer: int) -> str:
    """Of the gate on a layer's neurons; `part` is "encoder" or "decoder"."""
    return f"{part}{layer + 1}.neurons"


def kept_frames(speech: int, frames: int, threshold: float) -> int:
    """How many frames of a window are active. One of the speech has the saliency 1; one that is d frames past it has
    1 − d / frames, so that a threshold of 0 keeps the whole window and one of 0.9 a tenth of it behind the speech."""
    return min(frames, speech + round((1 - threshold) * frames)) if threshold > 0 else frames


def _convolve(x: Array, weights: Linear, stride: int) -> Array:
    """A convolution of three taps and its GELU: [n, inputs] to [⌈n / stride⌉, outputs], as a product of windows."""
    channels = x.shape[1]
    padded = np.pad(x, ((1, 1), (0, 0))).reshape(-1)
    windows = sliding_window_view(padded, TAPS * channels)[:: stride * channels]
    return weights(np.ascontiguousarray(windows), "gelu")


@dataclass(frozen=True, slots=True)
class _Layers:
    """Layers from tensors."""

    tensors: Mapping[str, Array]
    means: Mapping[str, Array]
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

    def attention(self, name: str) -> tuple[Norm, Linear, Linear]:
        attending = f"{name}.self_attn"
        qkv = self.linear(*(f"{attending}.{part}_proj" for part in "qkv"))
        return self.norm(f"{name}.self_attn_layer_norm"), qkv, self.linear(f"{attending}.out_proj")

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

    def encoder_layer(self, i: int) -> EncoderLayer:
        name = f"encoder.layers.{i}"
        return EncoderLayer(*self.attention(name), self.feed_forward(name, gate_name("encoder", i)))

    def decoder_layer(self, i: int) -> DecoderLayer:
        name = f"decoder.layers.{i}"
        attending = f"{name}.encoder_attn"
        return DecoderLayer(
            *self.attention(name),
            self.norm(f"{attending}_layer_norm"),
            self.linear(f"{attending}.q_proj"),
            self.linear(f"{attending}.out_proj"),
            self.linear(f"{attending}.k_proj", f"{attending}.v_proj"),
            self.feed_forward(name, gate_name("decoder", i)),
        )
