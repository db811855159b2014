"""The decoder of `llama` in torch, for what needs derivatives: sequences of one length at once, without a cache."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models import kernels
from models.zoo.llama_packing import Array, Weights
from models.zoo.llama_shape import LlamaShape

See = Callable[[int, str, Tensor], Tensor]
"""Is shown what a gate of a layer, by its name in `llama_gates.CHANNEL_GATES`, would see [n, positions, channels], and
gives what is used instead: what it takes away of it is multiplied by coarse weights, where there are some."""


class TorchLlama:
    """Its weights are constants: in bf16, which is near enough to learn by, where that is fast."""

    def __init__(self, shape: LlamaShape, weights: Weights, coarse: Mapping[str, Array] = MappingProxyType({})) -> None:
        """`coarse` are the coarse weights of linear layers, by their names in the checkpoint."""
        self.shape = shape
        fast = kernels.instruction_set("bf16") in ("amx", "avx512")
        self.datatype = torch.bfloat16 if fast else torch.float32
        self._weights = {name: self._tensor(weights[name]) for name in _names(shape, weights)}
        self._coarse = {name: self._tensor(weight) for name, weight in coarse.items()}

    def __call__(self, tokens: Tensor, see: See = lambda layer, gate, values: values) -> Tensor:
        """The logits [n, positions, vocabulary] of tokens [n, positions]."""
        x = F.embedding(tokens, self._weights["model.embed_tokens.weight"]).float()
        for i in range(self.shape.layers):
            x = x + self._attention(x, i, see)
            x = x + self._feed_forward(x, i, see)
        head = "lm_head" if "lm_head.weight" in self._weights else "model.embed_tokens"
        return self._linear(self._norm(x, "model.norm"), head)

    def _attention(self, x: Tensor, layer: int, see: See) -> Tensor:
        shape, name = self.shape, f"model.layers.{layer}.self_attn"
        normed = self._norm(x, f"model.layers.{layer}.input_layernorm")
        given = see(layer, "attention", normed)

        def heads(part: str, count: int) -> Tensor:
            made = self._gated(normed, given, f"{name}.{part}_proj").reshape(*x.shape[:2], count, -1)
            if f"{name}.{part}_norm.weight" in self._weights:
                made = self._norm(made, f"{name}.{part}_norm")
            return made.transpose(1, 2)

        queries, keys = self._turned(heads("q", shape.heads)), self._turned(heads("k", shape.key_heads))
        share, window = shape.heads // shape.key_heads, shape.windows[layer]
        keys, values = (part.repeat_interleave(share, 1) for part in (keys, heads("v", shape.key_heads)))
        places = torch.arange(x.shape[1])
        behind = places[:, None] - places
        seen = (behind >= 0) & (behind < (window or len(places)))
        queries, keys, values = (part.to(self.datatype) for part in (queries, keys, values))
        mixed = F.scaled_dot_product_attention(queries, keys, values, seen).float().transpose(1, 2).flatten(2)
        return self._gated(mixed, see(layer, "output", mixed), f"{name}.o_proj")

    def _feed_forward(self, x: Tensor, layer: int, see: See) -> Tensor:
        name = f"model.layers.{layer}.mlp"
        normed = self._norm(x, f"model.layers.{layer}.post_attention_layernorm")
        gates = F.silu(self._gated(normed, see(layer, "feed_forward", normed), f"{name}.gate_proj"))
        given, up = see(layer, "neurons", gates), f"{name}.up_proj"
        products = given * self._linear(normed, up)
        if given is not gates and up in self._coarse:
            products = products + (gates - given) * self._gated(normed, torch.zeros_like(normed), up)
        return self._gated(products, see(layer, "down", products), f"{name}.down_proj")

    def _gated(self, values: Tensor, given: Tensor, name: str) -> Tensor:
        made = self._linear(given, name)
        if given is values or name not in self._coarse:
            return made
        return made + F.linear((values - given).to(self.datatype), self._coarse[name]).float()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        bias = self._weights.get(f"{name}.bias")
        made = F.linear(x.to(self.datatype), self._weights[f"{name}.weight"]).float()
        return made if bias is None else made + bias

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self.shape.epsilon)

    def _turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] * torch.from_numpy(self.shape.frequencies)
        cosines, sines = (torch.cat([turn, turn], 1) for turn in (angles.cos(), angles.sin()))
        first, second = x.chunk(2, -1)
        return x * cosines + torch.cat([-second, first], -1) * sines

    def _tensor(self, weight: Array) -> Tensor:
        values = torch.from_numpy(np.array(weight))
        return values.to(self.datatype) if values.ndim == 2 else values


def _names(shape: LlamaShape, weights: Weights) -> list[str]:
    """Of all tensors that a checkpoint has for this shape."""
    names = ["model.embed_tokens.weight", "model.norm.weight", *([] if shape.tied else ["lm_head.weight"])]
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        names += [f"{layer}.{norm}_layernorm.weight" for norm in ("input", "post_attention")]
        parts = [f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
        parts += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
        names += [f"{layer}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    return [name for name in names if name in weights]
