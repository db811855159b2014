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

Four kinds of gate, all without training. The one on positions leaves out most of the silence behind the speech
(`whisper_positions`), the one on words most of the vocabulary (`whisper_words`), the one on heads those that are hardly
missed (`whisper_heads`). Those on the neurons of each layer
leave out those that add little beyond their calibrated means (TEAL, Liu et al. 2024), which stand in for them; in the
encoder, where a request has many positions, a few of them tell which neurons all of them need, so that neither product
is done for the others.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from models import kernels
from models.model import GateContext
from models.zoo.whisper_heads import ActiveHeads, CalibratedHeads, HeadGate
from models.zoo.whisper_layers import (
    EPSILON,
    SAMPLED,
    Array,
    DecoderLayer,
    EncoderLayer,
    Layers,
    Linear,
    NeuronGate,
    Norm,
    Watch,
    attentions_of,
    gates_of,
    mixed_in,
)
from models.zoo.whisper_positions import Positions, active_positions, convolved
from models.zoo.whisper_shape import WhisperShape
from models.zoo.whisper_words import Calibrated, NextWords, WordGate

DENSE: Mapping[str, float] = MappingProxyType({})
"""The thresholds of the dense model."""

POSITIONS_GATE, HEADS_GATE, WORDS_GATE = "positions", "heads", "words"


@dataclass(frozen=True, slots=True)
class Heard:
    """What the encoder makes of a window: its `states` [n, hidden] at the positions that are there."""

    states: Array
    positions: Positions


@dataclass(slots=True)
class Decoding:
    """What one window's decoder remembers: the active heads of each layer's attention to what was said and of that to
    what was heard, one after the other; the keys and values of what was heard, of each layer [n, 2 · channels of the
    heads]; those of what was said [layers, 2, context, hidden], of which the first `tokens` are there."""

    positions: Positions
    bias: Array | None
    heads: list[ActiveHeads]
    heard: list[Array]
    said: Array
    tokens: int = 0


class Whisper:
    """An encoder and a decoder with their weights. Runs may overlap in several threads."""

    def __init__(
        self,
        shape: WhisperShape,
        tensors: Mapping[str, Array],
        calibrated: Calibrated | None = None,
        datatype: str = "fp32",
        report: Callable[[float], None] = lambda done: None,
    ) -> None:
        """`tensors` are named as Hugging Face does it, without "model.". With what calibration found it has gates on
        neurons and words. The products are in the `datatype` "fp32", "bf16" or "int8"; all else is in float32, but
        that the encoder's attention may round to bf16 where the products round too. `report` is called with the share
        done, 0 to 1. Raises `ValueError` for tensors or a calibration of another shape."""
        self.shape, self._datatype = shape, datatype
        self.attentions = attentions_of(shape.encoder_layers, shape.decoder_layers)
        self.neuron_gates = gates_of(shape.encoder_layers, shape.decoder_layers)
        means = [] if calibrated is None else calibrated.means
        if calibrated is not None and len(means) != len(self.neuron_gates):
            raise ValueError(f"there are means of {len(means)} layers, and the model has {len(self.neuron_gates)}")
        means_of = dict(zip(self.neuron_gates, means, strict=bool(means)))
        heads = [] if calibrated is None else calibrated.heads
        if heads and len(heads) != len(self.attentions):
            raise ValueError(f"there are heads of {len(heads)} attentions, and the model has {len(self.attentions)}")
        make = Layers(tensors, means_of, dict(zip(self.attentions, heads, strict=bool(heads))), datatype)
        self._stem = tuple(make.convolution(f"encoder.conv{i}") for i in (1, 2))
        self._positions = make.table("encoder.embed_positions.weight", shape.positions, shape.hidden)
        self._silence = None if calibrated is None else calibrated.silence
        if self._silence is not None and self._silence.shape != (shape.hidden,):
            raise ValueError(f"what silence is has {len(self._silence)} channels, and the model has {shape.hidden}")
        layers = shape.encoder_layers + shape.decoder_layers
        self._encoder: list[EncoderLayer] = []
        for i in range(shape.encoder_layers):
            self._encoder.append(make.encoder_layer(i, shape.encoder_heads))
            report(0.9 * len(self._encoder) / layers)
        self._encoder_norm = make.norm("encoder.layer_norm")
        self.words = make.table("decoder.embed_tokens.weight", shape.vocabulary, shape.hidden)
        self._places = make.table("decoder.embed_positions.weight", shape.context, shape.hidden)
        self._decoder: list[DecoderLayer] = []
        for i in range(shape.decoder_layers):
            self._decoder.append(make.decoder_layer(i, shape.decoder_heads))
            report(0.9 * (shape.encoder_layers + len(self._decoder)) / layers)
        norm = make.norm("decoder.layer_norm")
        self._speech_decoder = kernels.speech_decoder(
            [_speech_layer(layer) for layer in self._decoder],
            (norm.weight, norm.bias),
            head_size=shape.hidden // shape.decoder_heads,
            epsilon=EPSILON,
        )
        self._to_words = kernels.pack_matrix(self.words, datatype)
        self._word_gate = (
            None if calibrated is None else WordGate.of(self.words, calibrated.project, calibrated.lift, datatype)
        )
        report(1.0)

    def with_heads(self, heads: Sequence[CalibratedHeads]) -> "Whisper":
        """The same model, with these heads of all its attentions."""
        other, of_encoder, of_decoder = copy(self), heads[: len(self._encoder)], heads[len(self._encoder) :]
        other._encoder = [
            replace(layer, output=replace(layer.output, calibrated=own))
            for layer, own in zip(self._encoder, of_encoder, strict=True)
        ]
        other._decoder = [
            replace(
                layer,
                output=replace(layer.output, calibrated=own),
                heard_output=replace(layer.heard_output, calibrated=heard),
            )
            for layer, own, heard in zip(self._decoder, of_decoder[::2], of_decoder[1::2], strict=True)
        ]
        return other

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
    ) -> Heard:
        """What there is to hear in a window's spectrum [frames, mels], of which the first `speech` frames hold speech.
        `watch` is told the neurons of each layer, [positions, neurons]."""
        shape = self.shape
        if spectrum.shape != (shape.frames, shape.mels):
            raise ValueError(f"spectrum: must be {[shape.frames, shape.mels]}, got {list(spectrum.shape)}")
        kept = active_positions(-(-speech // 2), shape.positions, thresholds.get(POSITIONS_GATE, 0.0))
        context.record(POSITIONS_GATE, shape.positions, len(kept))
        first, second = (partial(weights, activation="gelu", threads=context.threads) for weights in self._stem)
        x = convolved(spectrum, first, second, kept, self._positions)
        if self._silence is not None:
            x[kept.near :] += self._silence
        bias, size, threads = kept.bias(), shape.hidden // shape.encoder_heads, context.threads
        neurons = heads = 0
        for i, layer in enumerate(self._encoder):
            active = layer.output(thresholds.get(HEADS_GATE, 0.0))
            if active.count:
                queries, keys, values = _side_by_side(
                    layer.qkv(x, outputs=active.parts(3), norm=layer.norm, threads=threads), 3
                )
                mixed = kernels.attention(
                    queries, keys, values, size, bias=bias, datatype=self._datatype, threads=threads
                )
                if watch is not None:
                    watch(self.attentions[i], mixed)
                x = mixed_in(x, mixed, layer.output, active, threads)
            else:
                x = x + active.bias
            x, some = layer.feed_forward(x, context, thresholds, watch)
            neurons += some if some == shape.encoder_feed_forward else some + some // SAMPLED
            heads += active.count
        context.record(HEADS_GATE, shape.encoder_layers * shape.encoder_heads, heads)
        context.macs += shape.encoder_macs
        context.macs_skipped += max(0, shape.encoder_macs - shape.encoded_macs(len(kept), neurons, heads))
        return Heard(self._encoder_norm(x), kept)

    def listen(self, heard: Heard, context: GateContext, thresholds: Mapping[str, float] = DENSE) -> Decoding:
        """A decoder that has heard a window and said nothing yet, with the heads that it has at these thresholds."""
        shape, states, threshold = self.shape, heard.states, thresholds.get(HEADS_GATE, 0.0)
        heads, keys_values = list[ActiveHeads](), list[Array]()
        for layer in self._decoder:
            own, other = layer.output(threshold), layer.heard_output(threshold)
            heads += [own, other]
            keys_values.append(layer.heard_keys_values(states, outputs=other.parts(2), threads=context.threads))
        own_heads, heard_heads = _heads(heads)
        context.record(HEADS_GATE, 2 * shape.all_decoder_heads, own_heads + heard_heads)
        context.macs += (dense := shape.listening_macs(shape.positions, shape.all_decoder_heads))
        context.macs_skipped += dense - shape.listening_macs(len(states), heard_heads)
        said = np.empty((shape.decoder_layers, 2, shape.context, shape.hidden), np.float32)
        return Decoding(heard.positions, heard.positions.bias(), heads, keys_values, said)

    def step(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        possible: Array | None = None,
    ) -> NextWords:
        """Says these tokens after those before, and tells what may be the next. Words that cannot be it have −∞ in
        `possible` [vocabulary], which is added; the gate on words is for calls that say so. Raises `ValueError` past
        the context."""
        state = self._say(tokens, decoding, context, thresholds)[-1:]
        words, threshold = self.shape.vocabulary, thresholds.get(WORDS_GATE, 0.0)
        context.macs += self.shape.word_macs
        if self._word_gate is not None and threshold and possible is not None:
            found = self._word_gate(state, possible, threshold)
            context.record(WORDS_GATE, words, len(found.logits), found.ids)
            done = self._word_gate.macs + len(found.logits) * self.shape.hidden
            context.macs_skipped += max(0, self.shape.word_macs - done)
            return found
        every: Array = kernels.gated_matmul(state, self._to_words)[0]
        return NextWords(None, every if possible is None else every + possible)

    def score(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float] = DENSE,
        watch: Watch | None = None,
    ) -> Array:
        """The logits [tokens, vocabulary] of what follows each of these tokens. `watch` is told what each attention
        gives and the neurons of each layer, and as `WORDS_GATE` the states [tokens, hidden] that words are compared
        with."""
        shape, seen = self.shape, None
        if watch is not None:
            widths = [shape.hidden, shape.hidden, shape.decoder_feed_forward]
            seen = np.zeros((shape.decoder_layers, len(tokens), sum(widths)), np.float32)
        states = self._say(tokens, decoding, context, thresholds, seen)
        if watch is not None and seen is not None:
            attentions, gates = self.attentions[shape.encoder_layers :], self.neuron_gates[shape.encoder_layers :]
            for i, of_layer in enumerate(seen):
                names = (*attentions[2 * i : 2 * i + 2], gates[i])
                for name, values in zip(names, np.split(of_layer, np.cumsum(widths)[:-1], 1), strict=True):
                    watch(name, values)
            watch(WORDS_GATE, states)
        context.macs += len(tokens) * shape.word_macs
        return kernels.gated_matmul(states, self._to_words)

    def _say(
        self,
        tokens: Sequence[int],
        decoding: Decoding,
        context: GateContext,
        thresholds: Mapping[str, float],
        seen: Array | None = None,
    ) -> Array:
        """For each token what words are compared with, [tokens, hidden]. `seen` is written as by `kernels.speak`."""
        shape, start, end = self.shape, decoding.tokens, decoding.tokens + len(tokens)
        if end > shape.context:
            raise ValueError(f"tokens: the decoder looks at {shape.context} at most, got {end}")
        gates = self.neuron_gates[shape.encoder_layers :]
        active = np.empty(shape.decoder_layers, np.int32)
        states = kernels.speak(
            self._speech_decoder,
            self.words[list(tokens)] + self._places[start:end],
            decoding.said,
            start,
            heads=[(heads.channels, heads.bias) for heads in decoding.heads],
            heard=decoding.heard,
            bias=decoding.bias,
            thresholds=np.array([thresholds.get(gate, 0.0) for gate in gates], np.float32),
            active=active,
            seen=seen,
        )
        decoding.tokens = end
        for gate, layer, count in zip(gates, self._decoder, active.tolist(), strict=True):
            if layer.feed_forward.gate is not None:
                context.record(gate, len(tokens) * shape.decoder_feed_forward, count)
        own_heads, heard_heads = _heads(decoding.heads)
        all_neurons, all_heads = shape.decoder_layers * shape.decoder_feed_forward, shape.all_decoder_heads
        dense = shape.step_macs(len(tokens), end, shape.positions, all_neurons, all_heads, all_heads)
        neurons = (int(active.sum()) // len(tokens) + all_neurons) // 2
        done = shape.step_macs(len(tokens), end, len(decoding.positions), neurons, own_heads, heard_heads)
        context.macs += dense
        context.macs_skipped += max(0, dense - done)
        return states


def _heads(heads: Sequence[ActiveHeads]) -> tuple[int, int]:
    """How many attend to what was said, and to what was heard."""
    return sum(active.count for active in heads[::2]), sum(active.count for active in heads[1::2])


def _speech_layer(layer: DecoderLayer) -> kernels.SpeechLayer:
    def pair(of: Norm) -> tuple[Array, Array]:
        return of.weight, of.bias

    def product(of: Linear | HeadGate) -> tuple[kernels.PackedMatrix, Array]:
        return of.packed, of.bias

    neurons = layer.feed_forward
    gate = neurons.gate
    return kernels.speech_layer(
        norm=pair(layer.norm),
        qkv=product(layer.qkv),
        output=product(layer.output),
        heard_norm=pair(layer.heard_norm),
        heard_query=product(layer.heard_query),
        heard_output=product(layer.heard_output),
        neurons_norm=pair(neurons.norm),
        up=product(neurons.up),
        down=product(neurons.down),
        gate=None if gate is None else (gate.means, gate.norms, gate.bias),
    )


def _side_by_side(x: Array, parts: int) -> list[Array]:
    """The parts of x [n, parts · m], [n, m] each. As `np.split`, which takes longer than a product of a step."""
    width = x.shape[1] // parts
    return [x[:, part * width : (part + 1) * width] for part in range(parts)]
