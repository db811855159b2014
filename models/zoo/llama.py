"""Llama (Touvron et al. 2023) and its kin Mistral, Qwen2 and Qwen3, on our kernels: tokens in, logits of what follows.

    x = table[tokens]
    for each layer:
        x = x + output(attention(rotary(queries), rotary(keys), values))    of norm(x)
        x = x + down(silu(gate) · up)                                       of norm(x)
    logits = head(norm(x))

What the families add is found in the checkpoint: biases (Qwen2), norms of each head's queries and keys (Qwen3), a
window of positions (Mistral), a head that is the table (tied). Keys and values are kept: a position is computed once.

There are two ways through it. `advance` takes many tokens of one sequence, a prompt, which need nearly all channels
between them; each layer has one gate there, on the neurons, by what they are over all positions. `decode` takes the
next token of a few sequences, in one call of the kernels, and each layer has six gates there: on the inputs of four
of its products, on the neurons, which are known once their gate half is, and on the heads, of which those that did not
attend far when they were last asked do not read far positions. The logits have one more, on their inputs: what it
leaves of them is a preview, and those of likely words are computed again of all inputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from hashlib import sha256
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.llama_gates import BASIS, CHANNEL_GATES, GATES, PROMPT_GATE, care_name, gate_name, norms_name
from models.zoo.llama_layer import LlamaLayer, decoder_layer, pack_layer, product_names
from models.zoo.llama_packing import Array, Packing, Weights, completed
from models.zoo.llama_shape import LlamaShape
from models.zoo.packed_rows import PackedRows

Watch = Callable[[int, Array], Array]
"""Is shown what a gate, by its number, would see of each position [n, channels], and gives what is used instead."""

Select = Callable[[int, Array], NDArray[np.int32] | None]
"""Is given a layer's number and the gate half of its neurons [n, neurons], and gives those that are active, None for
all."""

PackCoarse = Callable[[int, str, Array], kernels.CoarseMatrix]
"""Is given a layer's number, one of its products as `product_names` calls it, and the weight, and packs that."""

FIRST_CAPACITY = 128
"""Positions that a new cache has room for; it doubles when it is full."""

MARGIN = 9.0
"""Under the head's gate, logits that are further than this below the greatest stay previews, and all others are
computed again of all inputs. What previews lack is about normally distributed over the words, so that their
probabilities would be too small by half of its variance, as a logarithm, which they are given."""

UNCALIBRATED: Mapping[str, Array] = MappingProxyType({})


@dataclass(slots=True)
class Cache:
    """The keys and values of one sequence: `content` is [layers, 2, capacity, key heads · head size], of which `length`
    positions are there. `far_shares` [layers, key heads] are what the gates on heads know of it."""

    layers: int
    key_heads: int
    head_size: int
    length: int = 0
    content: Array = field(init=False)
    far_shares: Array = field(init=False)

    def __post_init__(self) -> None:
        self.content = np.zeros((self.layers, 2, FIRST_CAPACITY, self.key_heads * self.head_size), np.float32)
        self.far_shares = np.full((self.layers, self.key_heads), np.inf, np.float32)

    def reserve(self, length: int) -> None:
        """Makes room for so many positions."""
        capacity = self.content.shape[2]
        if length > capacity:
            grown = np.zeros((*self.content.shape[:2], max(2 * capacity, length), self.content.shape[3]), np.float32)
            grown[:, :, : self.length] = self.content[:, :, : self.length]
            self.content = grown


class Llama:
    """A decoder with its weights. Runs may overlap in several threads, each with caches of its own."""

    def __init__(
        self,
        shape: LlamaShape,
        weights: Weights,
        datatype: str = "fp32",
        calibration: Mapping[str, Array] = UNCALIBRATED,
        report: Callable[[float], None] = lambda done: None,
        rows: PackedRows | None = None,
    ) -> None:
        """Packs the weights, or takes them packed from `rows`, where `keep` keeps them; those of the products are in
        the `datatype` "fp32", "bf16" or "int8", all else is in float32. Of what was calibrated a gate on inputs has
        their means by its name, each of a layer its `norms_name`, and the layer its `care_name`. `report` is called
        with the share done, 0 to 1.

        Raises `ValueError` for weights of another shape."""
        self.shape = shape
        self._weights = weights
        self._norm = weights["model.norm.weight"]
        # The head first: it is the largest by far, and in float32 for a moment.
        self._packing = packing = Packing(weights, datatype, rows)
        if not shape.tied and "lm_head.weight" not in weights:
            raise ValueError("config.json: tie_word_embeddings is not true, and the weights have no lm_head.weight")
        self._head_name = "model.embed_tokens" if shape.tied else "lm_head"
        self.turn: kernels.RowMatrix | None = None
        self.words: kernels.RowMatrix | None = None
        if BASIS in calibration:
            self.turn_head(calibration[BASIS])
        else:
            self.head = packing.matrix("inputs", self._head_name)
        if (self.head.outputs, self.head.inputs) != (shape.vocabulary, shape.hidden):
            raise ValueError(
                f"{self._head_name}.weight must be [{shape.vocabulary}, {shape.hidden}], as config.json says"
            )
        self.head = self.head.with_means(calibration.get("head"))
        layers = []
        for i in range(shape.layers):
            layers.append(pack_layer(packing, shape, i, calibration))
            packing.release()
            report(0.8 * (i + 1) / (shape.layers + 1))
        self.layers = tuple(layers)
        self.gates = (*(gate_name(i, gate) for i in range(shape.layers) for gate in GATES), "head")
        self.prompt_gates = tuple(gate_name(i, PROMPT_GATE) for i in range(shape.layers))
        self.neuron_norms = tuple(calibration.get(norms_name(gate_name(i, "neurons"))) for i in range(shape.layers))
        self._cares = [calibration.get(care_name(i)) for i in range(shape.layers)]
        self._decoder = self._made_decoder()
        report(1.0)

    def make_coarse(
        self, pack: PackCoarse = lambda layer, part, weight: kernels.pack_coarse(weight), key: str = ""
    ) -> None:
        """Gives the layers coarse weights beside the others, by which their gates read what they leave out. They lie
        together in memory, since a step under gates reads them from end to end. Where packed weights are kept, the
        `key` says how they were packed."""
        made = []
        for i, layer in enumerate(self.layers):
            made.append(layer.with_coarse(partial(self._packing.coarse, key), partial(pack, i), i))
            self._packing.release()
        self.layers = tuple(made)
        self._decoder = self._made_decoder()

    def keep(self) -> None:
        """Writes the packed weights to their file, if they have one that lacks some."""
        self._packing.keep()

    def _made_decoder(self) -> kernels.Decoder:
        shape = self.shape
        return kernels.decoder(
            [
                decoder_layer(layer, norms, care)
                for layer, norms, care in zip(self.layers, self.neuron_norms, self._cares, strict=True)
            ],
            self._norm,
            self.head,
            heads=shape.heads,
            key_heads=shape.key_heads,
            head_size=shape.head_size,
            epsilon=shape.epsilon,
            words=self.words,
            margin=MARGIN,
            turn=self.turn,
        )

    @property
    def coarse_gates(self) -> NDArray[np.bool_]:
        """Which of the gates read coarsely what they leave out."""
        coarse = self.layers[0].qkv.coarse is not None
        return np.array([coarse and gate.rpartition(".")[2] in CHANNEL_GATES for gate in self.gates])

    def coarse_weights(self) -> dict[str, Array]:
        """The weights that the coarse ones stand for, by the name of each linear layer of the checkpoint."""
        found: dict[str, Array] = {}
        for i, layer in enumerate(self.layers):
            for part, names in product_names(i).items():
                coarse = getattr(layer, part).coarse
                if coarse is None:
                    continue
                ends = np.cumsum([len(self._weights[f"{name}.weight"]) for name in names])
                found |= zip(names, np.split(coarse.weight, ends[:-1]), strict=True)
        return found

    def turn_head(self, basis: Array) -> None:
        """Makes the logits ready for a gate: their inputs are turned, so that the first of them are the directions of
        the basis [hidden, directions]; of a network that is not turned yet."""
        name, key = self._head_name, sha256(basis.tobytes()).hexdigest()[:16]

        @lru_cache(1)
        def turn() -> Array:
            return completed(basis, self._weights[f"{name}.weight"])

        self.head = self._packing.matrix("inputs", name, key=f"turned {key}", change=lambda head: head @ turn())
        self.turn = self._packing.pack(f"turn {key}", lambda: np.ascontiguousarray(turn().T), "outputs", "fp32")
        # A word's logit is a row of the matrix where that lies by outputs. In int8 this copy takes least memory, and
        # rounding changes a logit by far less than a gate may.
        self.words = self._packing.matrix("outputs", name, datatype="int8")

    def start(self) -> Cache:
        """The cache of a new sequence."""
        return Cache(self.shape.layers, self.shape.key_heads, self.shape.head_size)

    def advance(
        self, tokens: Sequence[int], cache: Cache, watch: Watch | None = None, select: Select | None = None
    ) -> Array:
        """The last hidden states [n, hidden] of tokens [n] that follow those in the cache, which they are added to.
        `select` says which of a layer's neurons are active for these tokens; all are without it."""
        first = cache.length
        cache.reserve(first + len(tokens))
        turn = self._turn(np.arange(first, first + len(tokens), dtype=np.float32))
        x = self.embed(tokens)
        for i in range(self.shape.layers):
            x = self._run(i, x, turn, first, cache.content[i], watch, select)
        cache.length = first + len(tokens)
        return x

    def embed(self, tokens: Sequence[int]) -> Array:
        """What the first layer is given for tokens, [n, hidden]."""
        return self._weights.rows("model.embed_tokens.weight", tokens)

    def layer_output(self, layer: int, x: Array, watch: Watch) -> Array:
        """What a layer, by its number, makes of its input [n, hidden] for a text from its start."""
        cache = np.empty((2, len(x), self.shape.key_heads * self.shape.head_size), np.float32)
        return self._run(layer, x, self._turn(np.arange(len(x), dtype=np.float32)), 0, cache, watch, None)

    def logits(self, states: Array, watch: Watch | None = None) -> Array:
        """What follows each of the last hidden states [n, hidden]: [n, vocabulary]. Where the watch gives other inputs,
        the likely words are computed again, and it is shown which, by the number behind the last gate's."""
        normed, head = self.normed(states), len(self.gates) - 1
        turned = normed if self.turn is None else kernels.row_matmul(normed, self.turn)
        given = watch(head, turned) if watch else turned
        logits = kernels.row_matmul(given, self.head)
        if watch is None or given is turned or self.words is None:
            return logits
        half_variances = np.square((turned - given) * self.head.norms).sum(1) / (2 * self.head.outputs)
        for own, state, half_variance in zip(logits, normed, half_variances, strict=True):
            again = np.flatnonzero(own >= own.max() - MARGIN).astype(np.int32)
            own += half_variance
            own[again] = kernels.row_matmul(state[None], self.words, outputs=again)[0]
            watch(head + 1, own[None, again])
        return logits

    def normed(self, states: Array) -> Array:
        """Of the last hidden states [n, hidden] what logits are made of."""
        return kernels.rms_norm(states, self._norm, self.shape.epsilon)

    def up(self, layer: int, normed: Array) -> Array:
        """What a layer's gate values are multiplied by, [n, neurons], of its normed input [n, hidden]."""
        return kernels.row_matmul(normed, self.layers[layer].up)

    def decode(
        self, tokens: Sequence[int], caches: Sequence[Cache], thresholds: Array
    ) -> tuple[Array, NDArray[np.int32]]:
        """The next token of each sequence, under the thresholds [n, gates] of its own, 0 for dense: the logits [n,
        vocabulary] of what follows, and how many channels each gate found active, and logits were computed again,
        [n, gates + 1]."""
        for cache in caches:
            cache.reserve(cache.length + 1)
        lengths = [cache.length for cache in caches]
        active = np.empty((len(caches), len(self.gates) + 1), np.int32)
        x = self.embed(tokens)
        contents, far_shares = [cache.content for cache in caches], [cache.far_shares for cache in caches]
        turn = self._turn(np.array(lengths, np.float32))
        logits = kernels.decode_step(self._decoder, x, contents, far_shares, lengths, *turn, thresholds, active)
        for cache in caches:
            cache.length += 1
        return logits, active

    def _turn(self, positions: Array) -> tuple[Array, Array]:
        """Cosines and sines of the rotary embedding, [n, head size / 2] each."""
        angles = positions[:, None] * self.shape.frequencies
        return np.cos(angles), np.sin(angles)

    def _run(
        self,
        number: int,
        x: Array,
        turn: tuple[Array, Array],
        first: int,
        cache: Array,
        watch: Watch | None,
        select: Select | None,
    ) -> Array:
        """A layer, for positions from `first` on, whose keys and values go into the cache."""
        layer, seen = self.layers[number], _Watched(watch, number)
        x = self._attend(x, layer, turn, first, cache, seen)
        normed = kernels.rms_norm(x, layer.norm, self.shape.epsilon)
        gates = seen.product("feed_forward", normed, layer.gate, activation="silu")
        active = select(number, gates) if select else None
        if active is not None:
            own = gates.take(active, 1) * kernels.row_matmul(normed, layer.up, outputs=active)
            added: Array = x + kernels.row_matmul(own, layer.down, inputs=active)
            return added
        return seen.product("down", seen.neurons(gates, normed, layer.up), layer.down, residual=x)

    def _attend(
        self, x: Array, layer: LlamaLayer, turn: tuple[Array, Array], first: int, cache: Array, seen: "_Watched"
    ) -> Array:
        """The first half of a layer, for positions from `first` on, whose keys and values go into the cache."""
        shape, last = self.shape, first + len(x)
        width, key_width = shape.heads * shape.head_size, shape.key_heads * shape.head_size
        qkv = seen.product("attention", kernels.rms_norm(x, layer.attention_norm, shape.epsilon), layer.qkv)
        queries, keys = qkv[:, :width], qkv[:, width : width + key_width]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._head_norm(queries, layer.query_norm)
            keys = self._head_norm(keys, layer.key_norm)
        kernels.rotary(keys, *turn, out=cache[0, first:last])
        cache[1, first:last] = qkv[:, width + key_width :]
        heads = self._attention(kernels.rotary(queries, *turn), cache[:, :last], layer.window)
        return seen.product("output", heads, layer.output, residual=x)

    def _attention(self, queries: Array, cache: Array, window: int) -> Array:
        """Each query attends to the keys up to its own, or to the last `window` of those."""
        keys, values = cache
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


@dataclass(frozen=True, slots=True)
class _Watched:
    """The gates of a layer, of which each but that on heads is shown to the watch, if there is one."""

    watch: Watch | None
    layer: int

    def __call__(self, gate: str, values: Array) -> Array:
        return values if self.watch is None else self.watch(len(GATES) * self.layer + GATES.index(gate), values)

    def product(
        self,
        gate: str,
        values: Array,
        matrix: kernels.RowMatrix,
        activation: Literal["none", "silu"] = "none",
        residual: Array | None = None,
    ) -> Array:
        """That of the inputs [n, channels]. What the watch changes of them is multiplied by the coarse weights, if
        there are some."""
        given = self(gate, values)
        left = None if given is values or matrix.coarse is None else values - given
        return kernels.row_matmul(given, matrix, activation=activation, residual=residual, coarse=left)

    def neurons(self, gates: Array, normed: Array, up: kernels.RowMatrix) -> Array:
        """What a layer's neurons are by their gate halves [n, neurons]: by coarse weights where the watch gives 0."""
        given = self("neurons", gates)
        products: Array = given * kernels.row_matmul(normed, up)
        if given is not gates and up.coarse is not None:
            products += (gates - given) * kernels.row_matmul(np.zeros_like(normed), up, coarse=normed)
        return products
