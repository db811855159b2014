"""The network of `whisper` in torch, for what needs derivatives: one window, and all tokens of its text at once."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.zoo.whisper_layers import attentions_of, gate_name
from models.zoo.whisper_positions import Positions
from models.zoo.whisper_shape import WhisperShape

See = Callable[[str, Tensor], Tensor]
"""Is shown what a gate sees, [positions, channels], by the gate's name, and of an attention its heads by its name; what
it gives is used instead."""


class TorchWhisper:
    """Its weights are constants."""

    def __init__(self, shape: WhisperShape, tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors` as for `Whisper`."""
        self.shape = shape
        self.attentions = attentions_of(shape.encoder_layers, shape.decoder_layers)
        self._weights = {name: torch.from_numpy(np.array(values, np.float32)) for name, values in tensors.items()}

    def stem(self, spectrum: Tensor) -> Tensor:
        """What the encoder's layers begin with, [positions, hidden], of a whole window [frames, mels]."""
        x = spectrum.T[None]
        for i, stride in ((1, 1), (2, 2)):
            name = f"encoder.conv{i}"
            x = F.gelu(F.conv1d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], stride, padding=1))
        return x[0].T + self._weights["encoder.embed_positions.weight"]

    def encode(self, x: Tensor, positions: Positions, see: See = lambda name, values: values) -> Tensor:
        """What is heard at the positions that are there, of what their layers begin with, [n, hidden]."""
        bias = self._bias(positions)
        for i in range(self.shape.encoder_layers):
            name = f"encoder.layers.{i}"
            normed = self._norm(x, f"{name}.self_attn_layer_norm")
            x = x + self._attention(normed, normed, f"{name}.self_attn", self.shape.encoder_heads, bias, see)
            x = x + self._feed_forward(x, name, gate_name("encoder", i), see)
        return self._norm(x, "encoder.layer_norm")

    def score(
        self, tokens: Tensor, heard: Tensor, positions: Positions, see: See = lambda name, values: values
    ) -> Tensor:
        """The logits [n, vocabulary] of what follows each of the tokens [n]."""
        bias, causal = self._bias(positions), torch.full((len(tokens), len(tokens)), -torch.inf).triu(1)
        words = self._weights["decoder.embed_tokens.weight"]
        x = words[tokens] + self._weights["decoder.embed_positions.weight"][: len(tokens)]
        for i in range(self.shape.decoder_layers):
            name = f"decoder.layers.{i}"
            normed = self._norm(x, f"{name}.self_attn_layer_norm")
            x = x + self._attention(normed, normed, f"{name}.self_attn", self.shape.decoder_heads, causal, see)
            normed = self._norm(x, f"{name}.encoder_attn_layer_norm")
            x = x + self._attention(normed, heard, f"{name}.encoder_attn", self.shape.decoder_heads, bias, see)
            x = x + self._feed_forward(x, name, gate_name("decoder", i), see)
        return self._norm(x, "decoder.layer_norm") @ words.T

    def _attention(self, x: Tensor, seen: Tensor, name: str, heads: int, bias: Tensor | None, see: See) -> Tensor:
        queries, keys, values = (
            self._linear(of, f"{name}.{part}_proj").reshape(len(of), heads, -1).transpose(0, 1)[None]
            for of, part in ((x, "q"), (seen, "k"), (seen, "v"))
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, bias)[0].transpose(0, 1).flatten(1)
        return self._linear(see(name, mixed), f"{name}.out_proj")

    def _feed_forward(self, x: Tensor, name: str, gate: str, see: See) -> Tensor:
        neurons = F.gelu(self._linear(self._norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"))
        return self._linear(see(gate, neurons), f"{name}.fc2")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    @staticmethod
    def _bias(positions: Positions) -> Tensor | None:
        """What is added to the scores of attention to them, [1, n]."""
        bias = positions.bias()
        return None if bias is None else torch.from_numpy(bias)[None]
