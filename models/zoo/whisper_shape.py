"""The sizes of a Whisper, and its work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.zoo.config_fields import whole_number

TAPS = 3
"""Of both convolutions."""


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """`positions` are those of the encoder for a whole window, half as many as its frames; `context` is the most
    tokens that the decoder looks at; `…_feed_forward` are neurons of a layer."""

    mels: int
    positions: int
    hidden: int
    vocabulary: int
    context: int
    encoder_layers: int
    encoder_heads: int
    encoder_feed_forward: int
    decoder_layers: int
    decoder_heads: int
    decoder_feed_forward: int

    @property
    def frames(self) -> int:
        """Of a whole window."""
        return 2 * self.positions

    @property
    def encoder_macs(self) -> int:
        """Multiply-accumulates of the encoder on a whole window."""
        neurons = self.encoder_layers * self.encoder_feed_forward
        return self.encoded_macs(self.positions, neurons, self.encoder_layers * self.encoder_heads)

    def encoded_macs(self, positions: int, neurons: int, heads: int) -> int:
        """Those on so many positions, with so many neurons and heads in all layers together."""
        attended = heads * self.hidden // self.encoder_heads
        stem = positions * TAPS * self.hidden * (2 * self.mels + self.hidden)
        attention = positions * attended * (4 * self.hidden + 2 * positions)
        return stem + attention + 2 * positions * self.hidden * neurons

    @property
    def all_decoder_heads(self) -> int:
        """Those of one kind of attention, of all layers."""
        return self.decoder_layers * self.decoder_heads

    def listening_macs(self, positions: int, heads: int) -> int:
        """Those of the keys and values that the decoder's layers have of so many positions, for so many heads in all of
        them together."""
        return 2 * positions * self.hidden * (heads * self.hidden // self.decoder_heads)

    def step_macs(self, tokens: int, keys: int, positions: int, neurons: int, own_heads: int, heard_heads: int) -> int:
        """Those of a step of the decoder's layers on `tokens`, the last of `keys`, with so many neurons in all of them
        together, heads that attend to what was said, and heads that attend to what was heard."""
        size = self.hidden // self.decoder_heads
        own = own_heads * size * (4 * self.hidden + 2 * keys)
        heard = heard_heads * size * 2 * (self.hidden + positions)
        return tokens * (own + heard + 2 * self.hidden * neurons)

    @property
    def word_macs(self) -> int:
        """Those of the logits of one token."""
        return self.vocabulary * self.hidden


def read_shape(config: Mapping[str, Any]) -> WhisperShape:
    """The shape that a Hugging Face `config.json` tells of. Raises `ValueError` for another architecture, naming the
    field."""
    if config.get("model_type") != "whisper":
        raise ValueError(f"config.json: model_type must be 'whisper', got {config.get('model_type')!r}")
    if config.get("activation_function", "gelu") != "gelu" or config.get("scale_embedding", False):
        raise ValueError("config.json: activation_function must be 'gelu' and scale_embedding false")
    fields = dict(
        mels="num_mel_bins",
        positions="max_source_positions",
        hidden="d_model",
        vocabulary="vocab_size",
        context="max_target_positions",
        encoder_layers="encoder_layers",
        encoder_heads="encoder_attention_heads",
        encoder_feed_forward="encoder_ffn_dim",
        decoder_layers="decoder_layers",
        decoder_heads="decoder_attention_heads",
        decoder_feed_forward="decoder_ffn_dim",
    )
    shape = WhisperShape(**{name: whole_number(config, field) for name, field in fields.items()})
    for part, heads in (("encoder", shape.encoder_heads), ("decoder", shape.decoder_heads)):
        if shape.hidden % heads:
            raise ValueError(
                f"config.json: d_model must be a multiple of {part}_attention_heads, got {shape.hidden} and {heads}"
            )
    return shape
