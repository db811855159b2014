"""The compiled core. Arrays are float32, C-contiguous and in the CPU's memory (numpy, or anything with DLPack);
channel lists int32.

Wrong types raise TypeError and wrong values ValueError, both naming the argument. The GIL is released while a
function computes, on the calling thread alone unless it is given `Threads`. All functions may be called from several
threads at once.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Channels: TypeAlias = NDArray[np.int32]
Norm: TypeAlias = tuple[Floats, Floats]
Linear: TypeAlias = tuple[PackedMatrix, Floats]

class Threads:
    """The caller's thread and `count` − 1 others, which sleep while there is nothing to do. A call that is given them
    shares its active outputs out, in parts as even as blocks of 64 allow; its result is the same to the bit. While one
    call has them, others do all on their own thread.

    Raises ValueError for more than the processors that this process may use."""

    def __init__(self, count: int) -> None: ...
    @property
    def count(self) -> int: ...
    def shares(self, outputs: Channels) -> list[int]:
        """How many of a layer's active outputs, ascending ids, each thread takes."""

class PackedConvolution:
    """A convolution's weights. Immutable; made by `pack_convolution`."""

    @staticmethod
    def from_weights(
        weights: Floats,
        outputs: int,
        inputs: int,
        kernel: int,
        stride: int,
        padding: int,
        instruction_set: str | None = None,
    ) -> PackedConvolution:
        """A layer over weights that are packed already, as its `weights` gives them; they are not copied."""
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def padding(self) -> int: ...
    @property
    def datatype(self) -> str: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def nbytes(self) -> int:
        """Memory of the weights, with what pads them."""
    @property
    def weights(self) -> Floats:
        """Of an fp32 layer: [blocks, kernel², inputs, 64], read-only, the last block padded with zeros. A ValueError
        for others."""
    def macs(self, height: int, width: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for an image of height x width with that many active channels."""

class PackedMatrix:
    """A matrix. Immutable; made by `pack_matrix`."""

    @staticmethod
    def from_weights(weights: Floats, outputs: int, inputs: int, instruction_set: str | None = None) -> PackedMatrix:
        """A layer over weights that are packed already, as its `weights` gives them; they are not copied."""
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def datatype(self) -> str: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def nbytes(self) -> int:
        """Memory of the weights, with what pads them."""
    @property
    def weights(self) -> Floats:
        """Of an fp32 layer: [blocks, 1, inputs, 64], read-only, the last block padded with zeros. A ValueError for
        others."""
    def macs(self, rows: int, n_inputs: int, n_outputs: int) -> int:
        """Multiply-accumulates for that many rows and active channels."""

class RowMatrix:
    """A linear layer for a few rows. Immutable; made by `pack_rows`."""

    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def datatype(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def instruction_set(self) -> str:
        """That of products with a few rows: "avx512", "avx2" or "portable"."""
    @property
    def nbytes(self) -> int:
        """Memory of the weights, with what pads them."""
    @property
    def norms(self) -> Floats:
        """Those of the columns of the weight, [K]."""
    @property
    def scales(self) -> Floats | None:
        """Of an int8 layer, one for each output, [N]."""
    @property
    def words(self) -> NDArray[np.int32]:
        """The packed weights as they lie in memory, four bytes an item, read-only: what `repack_rows` takes."""
    def with_means(self, means: Floats | None, norms: Floats | None = None) -> RowMatrix:
        """The same weights, with the calibrated means [K] of the inputs, which stand for those that are skipped, and
        with other norms [K] if given, for their saliency."""

    @property
    def coarse(self) -> CoarseMatrix | None:
        """What stands for inputs, or neurons, that are not active."""
    def with_coarse(self, coarse: CoarseMatrix) -> RowMatrix:
        """The same weights with coarse ones beside them. In a decoder's step the others are then read for active
        channels alone, and coarse ones for all others, of which none is skipped."""

class CoarseMatrix:
    """Weights of 4 bits. Immutable; made by `pack_coarse`."""

    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Memory of the weights and their scales, with what pads them."""
    @property
    def words(self) -> NDArray[np.int32]:
        """The packed weights as they lie in memory, read-only: what `repack_coarse` takes."""
    @property
    def weight(self) -> Floats:
        """The weights that it stands for, [N, K]."""

class DecoderLayer:
    """Made by `decoder_layer`."""

class Decoder:
    """Made by `decoder`."""

    @property
    def gates(self) -> int:
        """Five to a layer, and that of the head."""

class SpeechLayer:
    """Made by `speech_layer`."""

class SpeechDecoder:
    """Made by `speech_decoder`."""

class EncoderAttention:
    """Made by `encoder_attention`."""

class EncoderFeedForward:
    """Made by `encoder_feed_forward`."""

class GatedLayer:
    """Made by `gated_layer`."""

class GatedNetwork:
    """Made by `gated_network`."""

class PackedDepthwise:
    """A depthwise convolution's weights. Immutable; made by `pack_depthwise`."""

    @property
    def channels(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def padding(self) -> tuple[int, int]: ...
    @property
    def instruction_set(self) -> str: ...
    def macs(self, height: int, width: int, n_channels: int) -> int:
        """Multiply-accumulates for an image of height x width with that many active channels."""

def pack_convolution(
    weight: Floats,
    stride: int = 1,
    padding: int = 0,
    datatype: str = "fp32",
    instruction_set: str | None = None,
) -> PackedConvolution:
    """Packs weight [O, I, k, k]; k is 1 or 3, stride 1 or 2, padding 0 or 1. The datatype is "fp32" or "bf16", see
    `pack_matrix`. The instruction set is the best there is for it unless one is named."""

def pack_matrix(
    weight: Floats, datatype: str = "fp32", instruction_set: str | None = None, split: bool = False
) -> PackedMatrix:
    """Packs weight [N, K], as torch's linear layers have it.

    In "bf16" weights and activations are rounded to it and the products summed in float32. In "int8" weights are
    numbers from -127 to 127 times a scale for each output, and so are activations times a scale for each row, which
    the call finds (absolute maximum / 127); their sums are exact. A row with a value that is not finite becomes NaN.
    Both take weights that are finite, and activations come and go as float32.

    In "fp32" the tile unit multiplies numbers in parts. With `split` those of the weights are kept, in 1.5 times their
    memory; else each call makes them. Elsewhere a product of 40 rows and more, of all channels, is seven of halves for
    eight (Strassen 1969), whose errors are relative to the largest values of two rows, columns or inputs that are
    mixed. Not so where these differ much, or one is zero, nor of weights that are given packed (`from_weights`).
    """

def pack_depthwise(
    weight: Floats, stride: int = 1, padding: tuple[int, int] = (0, 0), instruction_set: str | None = None
) -> PackedDepthwise:
    """Packs weight [C, k, k]; k is 3 or 5, stride 1 or 2. padding is (above and left, below and right), each less than
    k."""

def gated_conv2d(
    x: Floats,
    packed: PackedConvolution,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    residual: Floats | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> Floats:
    """The convolution of one image over active channels.

    y[h, w, j] = residual[h, w, j] + saliency[j] · act(scale[o] · Σ x[…, i] · W[o, i] + shift[o]) with o = outputs[j],
    summed over the taps and the active inputs.

    x is [H, W, len(inputs)], the result [H', W', len(outputs)]. inputs and outputs are strictly ascending ids, None
    for all channels. scale and shift are [O], for all channels of the layer; saliency is [len(outputs)]; residual has
    the result's shape; each may be None. activation is "none", "relu", "relu6", "gelu" (the exact form, to 1e-6) or
    "silu". The result is written to out if given, which may be residual itself and must not overlap anything else.
    """

def gated_matmul(
    x: Floats,
    packed: PackedMatrix,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    residual: Floats | None = None,
    norm: tuple[Floats, Floats, float] | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> Floats:
    """The matrix product over active channels: x is [M, len(inputs)], the result [M, len(outputs)]; everything else
    as in `gated_conv2d`. Rows of x may lie apart, or over each other. With a `norm`, the weight and the bias of the
    active inputs and epsilon, they go through `layer_norm` first; in bf16 and int8 that is when they are rounded."""

def feed_forward(
    x: Floats,
    up: PackedMatrix,
    down: PackedMatrix,
    *,
    neurons: Channels | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    bias: Floats | None = None,
    residual: Floats | None = None,
    norm: tuple[Floats, Floats, float] | None = None,
    out: Floats | None = None,
    threads: Threads | None = None,
) -> Floats:
    """Both products of a feed-forward block over its active `neurons`, [M, inputs of up] to [M, outputs of down]:
    residual + down(act(up(x) + shift)) + bias, `shift` of all neurons. As two calls of `gated_matmul`, but that the
    neurons of a few rows at a time are in memory, and where both products are bf16 they are rounded there once. Rows of
    x may lie apart, or over each other; with a `norm` they go through that first, as in `gated_matmul`, and x may be
    `out` too."""

def depthwise_conv2d(
    x: Floats,
    packed: PackedDepthwise,
    *,
    channels: Channels | None = None,
    scale: Floats | None = None,
    shift: Floats | None = None,
    activation: str = "none",
    saliency: Floats | None = None,
    out: Floats | None = None,
) -> Floats:
    """The convolution of one image, x [H, W, n], with a kernel of its own for each active channel: [H', W', n].

    y[h, w, j] = saliency[j] · act(scale[c] · Σ x[…, j] · W[c] + shift[c]) with c = channels[j], strictly ascending ids
    or None for all channels; everything else as in `gated_conv2d`.
    """

class LookupTable:
    """Rows [rows, width], of floats or rounded to bf16 ("fp32", "bf16"), which `fill` writes: zeros at first."""

    def __init__(self, rows: int, width: int, datatype: str = "fp32") -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def datatype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def fill(self, first: int, values: Floats) -> None:
        """Rows from `first` on become `values` [n, width]. Not to be called while others look up."""

def embed(
    words: Floats,
    positions: Floats,
    ids: Channels,
    places: Channels,
    weight: Floats,
    bias: Floats,
    epsilon: float,
    *,
    instruction_set: str | None = None,
) -> tuple[Floats, Floats]:
    """The layer norm of words[ids_i] + positions[places_i], as `layer_norm` does it: [n, C], and the factor
    1 / √(variance + epsilon) of each row, [n].

    words is [V, C] and positions [P, C]; ids and places, int32 [n], are rows of them, in any order.
    """

def look_up(
    table: LookupTable,
    added: Floats,
    ids: Channels,
    places: Channels,
    factors: Floats,
    bias: Floats,
    *,
    instruction_set: str | None = None,
) -> Floats:
    """factors_i · (table[ids_i] + added[places_i]) + bias: [n, width].

    A product W · (embedding) of all tokens at once, where the table has what the words add to it and `added` [P, width]
    what positions do, each less its mean, and the norm's weight is in W. factors [n] are those of `embed`, and bias
    [width] is that of the product and what the norm's own adds to it.
    """

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
    """The first half of an encoder's layer, for `attend_half`: its packed products, each with a bias [outputs], and the
    norm behind, weight and bias [H]. Of qkv, which has H inputs, the first heads · head_size outputs are queries, then
    come as many of keys, and H of values, with H / heads channels a head. scale and datatype are those of `attention`.
    Arrays are kept, and not copied."""

def encoder_feed_forward(up: Linear, down: Linear, norm: Norm, *, epsilon: float) -> EncoderFeedForward:
    """The second half, for `feed_forward_half`."""

def attend_half(
    half: EncoderAttention,
    x: Floats,
    qkv: Floats | None = None,
    bias: Floats | None = None,
    heads: Channels | None = None,
    heads_bias: Floats | None = None,
    threads: Threads | None = None,
) -> Floats:
    """norm(x + output(attention(qkv))) of x [M, H], in one call what `gated_matmul`, `attention` and `layer_norm` give,
    to the bit. M is at least 1.

    qkv [M, outputs] is x by that product where it is known, and None where it is to be made; bias is that of
    `attention`. Where only some heads [n] are attended with, those are named, and heads_bias [H] takes the place of the
    output's, with what stands for the others: neither their queries, keys and values are multiplied nor what they give.
    """

def feed_forward_half(half: EncoderFeedForward, x: Floats, threads: Threads | None = None) -> Floats:
    """norm(x + down(gelu(up(x)))) of x [M, H], in one call what `feed_forward` and `layer_norm` give, to the bit."""

def layer_norm(
    x: Floats,
    weight: Floats,
    bias: Floats,
    epsilon: float,
    *,
    residual: Floats | None = None,
    out: Floats | None = None,
    instruction_set: str | None = None,
) -> Floats:
    """The norm of each row z of x + residual [M, C]: (z − mean) / √(variance + epsilon) · weight + bias (Ba et al.
    2016), in one pass over memory.

    weight and bias are [C], residual is [M, C] or None for 0. The result is written to out if given, which may be x or
    residual itself.
    """

def rms_norm(
    x: Floats,
    weight: Floats,
    epsilon: float,
    *,
    residual: Floats | None = None,
    out: Floats | None = None,
    instruction_set: str | None = None,
) -> Floats:
    """The norm of each row z of x + residual [M, C]: z / √(mean of z² + epsilon) · weight (Zhang and Sennrich 2019);
    everything else as in `layer_norm`."""

def attention(
    q: Floats,
    k: Floats,
    v: Floats,
    head_size: int,
    *,
    key_heads: Channels | None = None,
    bias: Floats | None = None,
    scale: float | None = None,
    causal: bool = False,
    datatype: str = "fp32",
    out: Floats | None = None,
    threads: Threads | None = None,
    instruction_set: str | None = None,
) -> Floats:
    """Softmax attention of one sequence over the heads that are there.

    q is [T, n · d] and k [S, m · d] with d = head_size, v is [S, m · e]; the result is [T, n · e]. Inactive heads are
    those that were not projected: q, k and v are compact. Their rows may lie apart, so that they can be slices of the
    columns of one activation, or the first S rows of a cache.

    Head i of q reads head key_heads[i] of k and v (int32 [n], in any order); None shares the m evenly among the n, as
    grouped-query attention does (Ainslie et al. 2023). Scores are scale · q · k + bias, with scale 1 / √d unless given
    and bias [n, T, S], or [S] for all heads and queries: the logarithm of how often each key counts, say. With causal
    the rows of q are the last T of the S, and see no later one.

    Softmax is taken over blocks of keys at a time (FlashAttention, Dao et al. 2022): the memory that a call takes grows
    with S, not with T · S.

    With another datatype than "fp32" and more than three rows of q, where the processor has a tile unit or AVX512-BF16,
    what is multiplied, the powers included, is rounded to bf16. Sums are float32, and so is all that lies between.
    `threads` share the queries of all heads evenly, where they are worth it, and change no bit.
    """

def rotary(
    x: Floats, cosines: Floats, sines: Floats, *, out: Floats | None = None, instruction_set: str | None = None
) -> Floats:
    """Rotary embedding (Su et al. 2021) of x [T, n · d] by cosines and sines [T, d / 2] of the angles of its positions:
    with a and b the first and the second half of a head, it becomes a cos − b sin and b cos + a sin.

    The rows of x and of out may lie apart (slices of the columns of one activation); out may be x itself, or rows of a
    cache.
    """

def max_pool2x2(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> Floats:
    """The maximum of each 2x2 square of x [H, W, n], [H // 2, W // 2, n]; an odd last row or column is left out."""

def channel_means(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> Floats:
    """The mean over the positions of x [H, W, n], [n]."""

def squeeze_channels(
    x: Floats,
    channels: int,
    evidence: Floats,
    *,
    inputs: Channels | None = None,
    instruction_set: str | None = None,
) -> Floats:
    """The features of a gate, [channels + E], of a layer's input x [H, W, len(inputs)] and evidence [E].

    First the means of its channels over the positions, divided by their own mean over all `channels`, zero for the
    inactive ones; of a single channel, an image, the mean of its magnitude. Then the evidence.
    """

def gate_channels(
    features: Floats, projection: Floats, bias: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[Channels, Floats]:
    """Which of a layer's O channels are active, and what they are multiplied by (feature boosting and suppression,
    Gao et al. 2019).

    a = features · projection + bias, r = relu(a), m = r / mean(r) over all O channels. Active, in ascending order,
    are the channels with a > threshold and a > 0, and their multipliers are m. If none is, the one with the largest a
    is kept; its multiplier is 1 when all r are 0.

    features is [F], projection [F, O], bias [O]; the row of a feature that is 0 is not read. Returns (active int32
    [n], multipliers float32 [n]).
    """

def gated_layer(packed: PackedConvolution, predictor: Floats, offset: Floats, *, pool: bool = False) -> GatedLayer:
    """One layer of `gated_network`: its packed weights [O, I], the predictor [I + E, O] and the offset [O] of its gate,
    and whether a 2x2 maximum pool follows. They are kept, not copied."""

def gated_network(layers: Sequence[GatedLayer]) -> GatedNetwork:
    """Layers of which each reads what the one before it made. Their gates see the same E features beside it."""

def run_gated_network(
    network: GatedNetwork,
    x: Floats,
    evidence: Floats,
    *,
    thresholds: Floats,
    scales: Floats,
    shifts: Floats,
    threads: Threads | None = None,
) -> tuple[Floats, list[Channels]]:
    """All layers of a network on one image, in one call. Of each layer, as the functions named do it:

    squeeze_channels of its active inputs and the evidence; gate_channels at its threshold; gated_conv2d to the selected
    outputs, with "relu" and their multipliers for saliency; max_pool2x2 where it has one.

    x is [H, W, inputs of the first layer], evidence [E], thresholds [layers]. scales and shifts are those of the
    outputs of all layers, one layer after another. Returns the channel_means of the last layer's active outputs and the
    active outputs of each layer.
    """

def match_positions(x: Floats, threshold: float, *, instruction_set: str | None = None) -> Channels:
    """Which rows of x [M, C] are nearly alike: for each the one that it joins, int32 [M], itself where it stays.

    Pairs whose saliency, 1 − their cosine, is not above the threshold are gone through from the most alike on. A row
    that is in no pair yet joins the one before it, or joins the row of the pair that others have joined. The first row
    stays by itself.
    """

def merge_positions(
    x: Floats, sizes: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[Floats, Floats]:
    """A gate on the positions of a sequence: those that are nearly alike become one (token merging, Bolya et al. 2023;
    of all pairs, where they compare one half with the other).

    x is [M, C], and sizes [M] is how many positions each of its rows stands for. Rows that join another, by
    `match_positions`, become their mean, weighted by their sizes. Returns the rows that are left, in order, and their
    sizes; x and sizes themselves where none joined.
    """

def select_channels(
    x: Floats, mean: Floats | None, norms: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[Channels, Floats]:
    """Which input channels of a linear layer are active by measured saliency, and their part of its input (TEAL, Liu et
    al. 2024; WINA, Chen et al. 2025).

    Channel k of x [M, K] is active when √(mean over the rows of (x_k − mean_k)²) · norms_k > threshold: what it adds to
    the result beyond its calibrated mean, which is in the layer's bias (b + W · mean). norms [K] are those of the
    columns of W; mean is [K], None for 0. Returns (active int32 [n] in ascending order, x − mean of those [M, n]):
    the inputs and the x of `gated_matmul`. A channel that is no number anywhere is active.
    """

def pack_rows(
    weight: Floats,
    datatype: str = "fp32",
    by: str = "inputs",
    *,
    bias: Floats | None = None,
    instruction_set: str | None = None,
) -> RowMatrix:
    """Packs weight [N, K] for products with a few rows, which read each weight once: those of an input (or of an
    output, as `by` says) lie together, so that those of an inactive one are never read.

    In "bf16" weights are rounded to it, in "int8" to numbers from -127 to 127 times a scale for each output.
    Activations stay in float32 for a few rows, and are rounded to bf16 for many. Both take weights that are finite.
    """

ROW_LAYOUT: str
"""Names how packed rows lie in memory: what was written under another name is no input for `repack_rows`."""

def repack_rows(
    words: NDArray[np.int32],
    outputs: int,
    inputs: int,
    datatype: str,
    by: str,
    *,
    norms: Floats,
    scales: Floats | None,
    bias: Floats | None = None,
    instruction_set: str | None = None,
) -> RowMatrix:
    """The layer whose `words`, `norms` and `scales` these were; they are copied. A ValueError for what does not fit."""

def row_matmul(
    x: Floats,
    matrix: RowMatrix,
    *,
    inputs: Channels | None = None,
    outputs: Channels | None = None,
    activation: str = "none",
    residual: Floats | None = None,
    coarse: Floats | None = None,
    out: Floats | None = None,
) -> Floats:
    """residual + x · Wᵀ + bias over all channels, or act(x · Wᵀ + bias) with the activation "silu": x is [M, K], the
    result and the residual [M, N]. The result is written to out if given, which may be residual itself.

    Of a matrix packed by outputs, outputs [n] are the active ones, None for all: the result is [M, n]. Of one packed
    by inputs, inputs [n] are, and x is [M, n]. Then there is no activation and no residual, and the weights of the
    others are not read.

    coarse [M, K] is multiplied by the matrix's coarse weights, and added before the activation; there are no outputs
    then. Where the processor multiplies in bf16, these values times scales are rounded to it."""

SHARE_BESIDE_COARSE: float
"""A row of which more channels are active at a gate is dense there, where the matrix has coarse weights: reading those
of all channels beside the active ones would take longer."""

def pack_coarse(weight: Floats, *, order: Channels | None = None, factor: Floats | None = None) -> CoarseMatrix:
    """Packs weight [N, K], which is finite, with 4 bits to a weight: one of 16 values times a scale of its output, and
    one of its input for each 32 outputs, of those tried that which loses least.

    With an order of the inputs [K] and a factor [K, K], the lower Cholesky factor of the inverse of the second moments
    of the inputs in that order, each weight also makes up for the errors of those before it in the order, so that
    products with such inputs are nearer to the exact ones (GPTQ, Frantar et al. 2023). Above the factor's diagonal
    nothing is read."""

def repack_coarse(words: NDArray[np.int32], outputs: int, inputs: int) -> CoarseMatrix:
    """The matrix whose `words` these were; they are copied. A ValueError for what does not fit."""

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
    """A layer of a decoder of the Llama family: RMS norms [H], queries, keys and values as one product, norms of each
    head's queries and keys [head size] or None, and a gated feed-forward block of F neurons.

    up is packed by outputs, all others by inputs. neuron_norms [F] are what a neuron's gate value is multiplied by to
    be its saliency; without them neurons are not skipped. care [H] is what the first normed input is
    multiplied by to tell how much a token matters, see `decode_step`. window is how many positions are seen, 0 for all.
    """

def decoder(
    layers: list[DecoderLayer],
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
    """The layers with the last norm and the product that makes logits. words is the same product packed by outputs, for
    the logits that are computed again: those within margin of the greatest, where the head's gate skipped anything. All
    others are then larger by half of the variance, over the words, of what it left out: by so much they are too small
    to make the right probabilities together.
    turn [H, H], of fp32 and packed by outputs, is what the inputs of the head are multiplied by before its gate, and
    not those of words."""

def decode_step(
    decoder: Decoder,
    x: Floats,
    caches: list[Floats],
    far_shares: list[Floats],
    lengths: list[int],
    cosines: Floats,
    sines: Floats,
    thresholds: Floats,
    active: Channels,
) -> Floats:
    """One token of each of M sequences through all layers: x [M, H] are the tokens' embeddings, written over, the
    result their logits [M, V].

    A cache is [layers, 2, capacity, key heads · head size], keys and values, of which lengths[i] positions are there
    and one more is written. cosines and sines [M, head size / 2] are of the tokens' positions.

    thresholds [M, G] and active [M, G + 1], which is written, are of each layer's qkv, heads, output, gate, neurons and
    down, and of the head at last; 0 is dense. The last of active is how many logits were computed again. An input of a
    linear layer is active when |x_k - mean_k| · ‖W_k‖ is above the threshold (TEAL, Liu et al. 2024; WINA, Chen et al.
    2025), a neuron when |silu(gate_n)| · neuron_norms_n is (CATS, Lee et al. 2024); one that is not is 0 among the
    inputs of down. These saliencies of a token in a layer are multiplied by exp(care · normed input). Weights of a
    channel that is active for some rows are read once for those; what comes out for a row does not depend on the
    others. Of a matrix with coarse weights nothing is skipped: see `RowMatrix.with_coarse` and `SHARE_BESIDE_COARSE`.

    Of heads, those of keys and values are counted, and active ones read all positions that are there. Far are those
    behind the first `KEY_BLOCK`, in whole blocks of as many, but for the last `KEY_BLOCK` at least. What share of the
    attention they had when they were last read, the largest of a head's queries, is its saliency: far_shares [layers,
    key heads], an array for each cache, which is written; infinity before. All heads read all at every eighth position,
    each in its turn. There are no far positions where a window leaves out the first.
    """

KEY_BLOCK: int

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
    gate: tuple[Floats, Floats, Floats] | None = None,
) -> SpeechLayer:
    """A layer of a decoder that hears, Whisper's: layer norms (weight, bias) and products (packed, bias) in the order
    of their use. qkv makes queries, keys and values [3 · H], `heard…` are those that attend to the encoder; the F
    neurons have a GELU. gate are the means [F] and norms [F] of `select_channels`, and the bias [H] of down with the
    means folded in. All are kept, not copied."""

def speech_decoder(layers: list[SpeechLayer], norm: Norm, *, head_size: int, epsilon: float) -> SpeechDecoder:
    """The layers with the norm behind them."""

def speak(
    decoder: SpeechDecoder,
    x: Floats,
    cache: Floats,
    length: int,
    *,
    heads: list[tuple[Channels | None, Floats]],
    heard: list[Floats],
    bias: Floats | None = None,
    thresholds: Floats,
    active: Channels,
    seen: Floats | None = None,
) -> Floats:
    """Tokens of one text through all layers in one call: x [M, H] is what comes in, behind `length` others, and is
    written over. The result [M, H] is what words are compared with.

    cache is [layers, 2, capacity, H], keys and values of what was said, of which M more are written. heads are of each
    layer's attention to what was said and of that to what was heard: the channels of those that are there (None: all),
    and what is added to x beside what they give [H]. heard [positions, 2 · channels] are the keys and values of each
    layer, and bias [positions] is added to their scores.

    thresholds [layers] are those of the neurons' gates, 0 for dense; active [layers] is written with how many neurons
    were, which are selected for each token by itself, of all tokens together. seen [layers, M, 2 · H + F] is written
    with what both attentions give, those heads first that are there, and with the neurons.
    """

def likely_words(
    state: Floats,
    seen: Floats,
    preview: RowMatrix,
    words: RowMatrix,
    *,
    possible: Floats,
    threshold: float,
    most: int,
) -> tuple[Channels, Floats]:
    """The ids [n], ascending, of the words that may follow a state [1, H], and their logits [n], to which possible [V]
    is added: −∞ for those that cannot.

    Active are those whose preview, the product of seen [1, D] with possible added, makes them at least threshold times
    as likely as the likeliest, and the `most` likeliest of them (more where some are equal). preview [V, D] is packed
    by inputs, words [V, H] by outputs.
    """

def release_memory() -> None:
    """Gives what was freed back to the system, where the C library keeps it for itself."""

def instruction_sets(datatype: str = "fp32") -> tuple[str, ...]:
    """Those that this processor can run for a datatype, best first: of "amx" (in fp32 it differs from
    "avx512" in products of many rows alone), "avx512", "avx2", "neon" (in fp32) and always "portable"."""

def accumulate(rounds: int, datatype: str = "fp32") -> int:
    """For benchmarks: rounds of multiply-accumulates on registers alone, by the best instructions for a datatype.
    Returns how many there were."""

def read(x: Floats, turns: int = 1) -> float:
    """For benchmarks: reads x [N] so often, as fast as memory gives it. Returns the sum of what was read."""
