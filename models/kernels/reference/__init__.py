"""The kernels in plain torch, with the signatures of the compiled core: what the core is tested against, and what
serves where no compiler was.

It takes numpy arrays or CPU tensors and returns numpy arrays. It computes in the type of the weights, so float64
weights give an exact yardstick.
"""

from models.kernels.reference.arrays import instruction_sets, release_memory
from models.kernels.reference.attention import attention, rotary
from models.kernels.reference.coarse import (
    SHARE_BESIDE_COARSE,
    CoarseMatrix,
    pack_coarse,
    repack_coarse,
)
from models.kernels.reference.decoding import (
    KEY_BLOCK,
    ROW_LAYOUT,
    Decoder,
    DecoderLayer,
    RowMatrix,
    decode_step,
    decoder,
    decoder_layer,
    pack_rows,
    repack_rows,
    row_matmul,
)
from models.kernels.reference.depthwise import PackedDepthwise, depthwise_conv2d, pack_depthwise
from models.kernels.reference.embedding import LookupTable, embed, look_up
from models.kernels.reference.encoder import (
    EncoderAttention,
    EncoderFeedForward,
    attend_half,
    encoder_attention,
    encoder_feed_forward,
    feed_forward_half,
)
from models.kernels.reference.gate import channel_means, gate_channels, max_pool2x2, select_channels, squeeze_channels
from models.kernels.reference.network import (
    GatedLayer,
    GatedNetwork,
    gated_layer,
    gated_network,
    run_gated_network,
)
from models.kernels.reference.norms import layer_norm, rms_norm
from models.kernels.reference.positions import match_positions, merge_positions
from models.kernels.reference.products import (
    PackedConvolution,
    PackedMatrix,
    feed_forward,
    gated_conv2d,
    gated_matmul,
    pack_convolution,
    pack_matrix,
)
from models.kernels.reference.speech import (
    SpeechDecoder,
    SpeechLayer,
    likely_words,
    speak,
    speech_decoder,
    speech_layer,
)
from models.kernels.reference.threads import Threads

__all__ = [
    "KEY_BLOCK",
    "ROW_LAYOUT",
    "SHARE_BESIDE_COARSE",
    "CoarseMatrix",
    "Decoder",
    "DecoderLayer",
    "EncoderAttention",
    "EncoderFeedForward",
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
    "attend_half",
    "attention",
    "channel_means",
    "decode_step",
    "decoder",
    "decoder_layer",
    "depthwise_conv2d",
    "embed",
    "encoder_attention",
    "encoder_feed_forward",
    "feed_forward",
    "feed_forward_half",
    "gate_channels",
    "gated_conv2d",
    "gated_layer",
    "gated_matmul",
    "gated_network",
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
