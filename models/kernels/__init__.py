"""Gated products and convolutions on the CPU that compute only what is active.

Activations are of one image or one request, channels last and *compact*: an activation with n active channels is an
array of n channels together with the ascending int32 list of their ids. What a gate skipped is not in memory and is
never read.

    packed = pack_convolution(weight, padding=1)
    features = squeeze_channels(x, channels, evidence, inputs=x_active)
    active, multipliers = gate_channels(features, projection, bias, threshold)
    y = gated_conv2d(x, packed, inputs=x_active, outputs=active, shift=bias, activation="relu", saliency=multipliers)

The functions come from the compiled core (`BACKEND` is "native") or, where it was not built, from the plain-torch
reference ("reference").
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

_compiled = find_spec("models.kernels._core") is not None
if not _compiled and find_spec("torch") is None:
    raise ImportError(
        "the gated kernels were not compiled, and torch, which stands in for them, is not installed: "
        "install a C++ compiler and Sluice again, or pip install 'sluice-serve[torch]'"
    )

if TYPE_CHECKING or _compiled:
    from models.kernels._core import (
        ROW_LAYOUT,
        SHARE_BESIDE_COARSE,
        CoarseMatrix,
        Decoder,
        DecoderLayer,
        GatedLayer,
        GatedNetwork,
        LookupTable,
        PackedConvolution,
        PackedDepthwise,
        PackedMatrix,
        RowMatrix,
        SpeechDecoder,
        SpeechLayer,
        Threads,
        attention,
        channel_means,
        decode_step,
        decoder,
        decoder_layer,
        depthwise_conv2d,
        embed,
        feed_forward,
        gate_channels,
        gated_conv2d,
        gated_layer,
        gated_matmul,
        gated_network,
        instruction_sets,
        layer_norm,
        likely_words,
        look_up,
        match_positions,
        max_pool2x2,
        merge_positions,
        pack_coarse,
        pack_convolution,
        pack_depthwise,
        pack_matrix,
        pack_rows,
        release_memory,
        repack_coarse,
        repack_rows,
        rms_norm,
        rotary,
        row_matmul,
        run_gated_network,
        select_channels,
        speak,
        speech_decoder,
        speech_layer,
        squeeze_channels,
    )
else:
    from models.kernels.reference import (
        ROW_LAYOUT,
        SHARE_BESIDE_COARSE,
        CoarseMatrix,
        Decoder,
        DecoderLayer,
        GatedLayer,
        GatedNetwork,
        LookupTable,
        PackedConvolution,
        PackedDepthwise,
        PackedMatrix,
        RowMatrix,
        SpeechDecoder,
        SpeechLayer,
        Threads,
        attention,
        channel_means,
        decode_step,
        decoder,
        decoder_layer,
        depthwise_conv2d,
        embed,
        feed_forward,
        gate_channels,
        gated_conv2d,
        gated_layer,
        gated_matmul,
        gated_network,
        instruction_sets,
        layer_norm,
        likely_words,
        look_up,
        match_positions,
        max_pool2x2,
        merge_positions,
        pack_coarse,
        pack_convolution,
        pack_depthwise,
        pack_matrix,
        pack_rows,
        release_memory,
        repack_coarse,
        repack_rows,
        rms_norm,
        rotary,
        row_matmul,
        run_gated_network,
        select_channels,
        speak,
        speech_decoder,
        speech_layer,
        squeeze_channels,
    )

BACKEND: str = "native" if _compiled else "reference"


def instruction_set(datatype: str = "fp32") -> str:
    """The instruction set that is used when none is asked for: the best that this processor has for a datatype."""
    return instruction_sets(datatype)[0]


__all__ = [
    "BACKEND",
    "ROW_LAYOUT",
    "SHARE_BESIDE_COARSE",
    "CoarseMatrix",
    "Decoder",
    "DecoderLayer",
    "GatedLayer",
    "GatedNetwork",
    "LookupTable",
    "PackedConvolution",
    "PackedDepthwise",
    "PackedMatrix",
    "RowMatrix",
    "SpeechDecoder",
    "SpeechLayer",
    "Threads",
    "attention",
    "channel_means",
    "decode_step",
    "decoder",
    "decoder_layer",
    "depthwise_conv2d",
    "embed",
    "feed_forward",
    "gate_channels",
    "gated_conv2d",
    "gated_layer",
    "gated_matmul",
    "gated_network",
    "instruction_set",
    "instruction_sets",
    "layer_norm",
    "likely_words",
    "look_up",
    "match_positions",
    "max_pool2x2",
    "merge_positions",
    "pack_coarse",
    "pack_convolution",
    "pack_depthwise",
    "pack_matrix",
    "pack_rows",
    "release_memory",
    "repack_coarse",
    "repack_rows",
    "rms_norm",
    "rotary",
    "row_matmul",
    "run_gated_network",
    "select_channels",
    "speak",
    "speech_decoder",
    "speech_layer",
    "squeeze_channels",
]
