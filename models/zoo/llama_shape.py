"""What a `config.json` of a Llama, Mistral, Qwen2 or Qwen3 says, and the angles of its rotary embedding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAMILIES: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """`feed_forward` is the number of neurons of a layer, `positions` the longest sequence that the model was made for,
    `windows` how many positions each layer sees, 0 for all. `frequencies` [head size / 2] are the angles from one
    position to the next."""

    vocabulary: int
    positions: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    feed_forward: int
    layers: int
    epsilon: float
    tied: bool
    windows: tuple[int, ...]
    frequencies: NDArray[np.float32]

    @property
    def qkv_macs(self) -> int:
        """Multiply-accumulates of a layer's queries, keys and values, of one position."""
        return self.hidden * (self.heads + 2 * self.key_heads) * self.head_size

    @property
    def output_macs(self) -> int:
        """Those of what follows the attention."""
        return self.heads * self.head_size * self.hidden

    @property
    def head_macs(self) -> int:
        """Those of the logits."""
        return self.hidden * self.vocabulary

    def gates(self) -> tuple[list[int], list[int]]:
        """The channels of each gate of a step, layer by layer and the head at last, and the multiply-accumulates that
        one channel of each is worth; what heads are worth grows with the positions, see `far_macs`."""
        width = self.heads * self.head_size
        neurons = self.feed_forward
        channels = [self.hidden, self.key_heads, width, self.hidden, neurons, neurons] * self.layers + [self.hidden]
        worth = [
            width + 2 * self.key_heads * self.head_size,
            0,
            self.hidden,
            neurons,
            self.hidden,
            self.hidden,
        ] * self.layers + [self.vocabulary]
        return channels, worth

    def far_macs(self, position: int, block: int) -> int:
        """Those that a head of keys and values is worth at a position, in layers that see all: of the positions between
        the first `block` of them and the last."""
        far = max(0, (position + 1 - block) // block * block - block)
        return 2 * far * self.heads // self.key_heads * self.head_size

    def macs(self, first: int, last: int, logits: bool) -> int:
        """Multiply-accumulates of the positions first … last − 1, and of the logits of the last one."""
        positions = last - first
        layer = self.qkv_macs + self.output_macs + 3 * self.hidden * self.feed_forward
        seen = sum(layers * self.keys_seen(first, last, window) for window, layers in Counter(self.windows).items())
        attended = 2 * self.heads * self.head_size * seen
        return positions * self.layers * layer + attended + (self.head_macs if logits else 0)

    def keys_seen(self, first: int, last: int, window: int) -> int:
        """The keys that those positions attend to, all together."""

        def up_to(position: int) -> int:
            whole = min(position, window) if window else position
            return whole * (whole + 1) // 2 + (position - whole) * window

        return up_to(last) - up_to(first)


def read_shape(config: Mapping[str, Any]) -> LlamaShape:
    """The shape that a `config.json` tells of. Raises `ValueError` for another architecture, naming the field."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type must be one of {', '.join(FAMILIES)}, got {family!r}")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {config.get('hidden_act')!r}")
    try:
        hidden, heads, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
        head_size = config.get("head_dim") or hidden // heads
        shape = LlamaShape(
            vocabulary=config["vocab_size"],
            positions=config["max_position_embeddings"],
            hidden=hidden,
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_size=head_size,
            feed_forward=config["intermediate_size"],
            layers=layers,
            epsilon=config["rms_norm_eps"],
            tied=config.get("tie_word_embeddings", False),
            windows=_windows(config, layers),
            frequencies=_frequencies(config, head_size),
        )
    except KeyError as missing:
        raise ValueError(f"config.json lacks {missing}") from None
    if shape.heads % shape.key_heads or shape.head_size % 2:
        raise ValueError(
            f"num_attention_heads must be a multiple of num_key_value_heads and head_dim even, "
            f"got {shape.heads}, {shape.key_heads} and {shape.head_size}"
        )
    return shape


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    mistral = config["model_type"] == "mistral"
    window = config.get("sliding_window", 4096 if mistral else None) or 0
    if kinds := config.get("layer_types"):
        if len(kinds) != layers:
            raise ValueError(f"layer_types must be of {layers} layers, got {len(kinds)}")
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    if mistral:
        return (window,) * layers
    if not config.get("use_sliding_window"):
        return (0,) * layers
    whole = config.get("max_window_layers", layers)
    return tuple(0 if i < whole else window for i in range(layers))


def _frequencies(config: Mapping[str, Any], head_size: int) -> NDArray[np.float32]:
    """Of the rotary embedding, as it is or stretched for longer texts: "linear" (Chen et al. 2023), or "llama3", which
    stretches long wavelengths alone (Grattafiori et al. 2024)."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = scaling.get("rope_theta") or config.get("rope_theta", 10_000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    plain = (1.0 / np.float32(base) ** (np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size))).astype(
        np.float32
    )
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / np.float32(scaling["factor"])
    if kind != "llama3":
        raise ValueError(f"rope_type must be 'default', 'linear' or 'llama3', got {kind!r}")
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    mixed: NDArray[np.float32] = ((1 - share) * plain / scaling["factor"] + share * plain).astype(np.float32)
    return mixed
