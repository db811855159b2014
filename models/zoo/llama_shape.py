"""What a `config.json` of a Llama, Mistral, Qwen2 or Qwen3 says, and the angles of its rotary embedding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.zoo.config_fields import flag, positive_number, whole_number

FAMILIES: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3")
_POSITIONS = {"llama": 2048, "mistral": 131_072, "qwen2": 32_768, "qwen3": 32_768}
_KEY_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
"""What transformers takes where a `config.json` does not say; of a Llama as many as there are heads."""


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
    """The shape that a `config.json` tells of; what it does not say is as transformers has it for the family. Raises
    `ValueError` for another architecture, naming the field."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"config.json: model_type must be one of {', '.join(FAMILIES)}, got {family!r}")
    _check_architectures(config.get("architectures"))
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act must be 'silu', got {config.get('hidden_act')!r}")
    hidden, heads, layers = (
        whole_number(config, field) for field in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    head_size, key_heads = _head_size(config, hidden, heads), _key_heads(config, heads)
    if heads % key_heads or head_size % 2:
        raise ValueError(
            f"config.json: num_attention_heads must be a multiple of num_key_value_heads and head_dim even, "
            f"got {heads}, {key_heads} and {head_size}"
        )
    return LlamaShape(
        vocabulary=whole_number(config, "vocab_size"),
        positions=whole_number(config, "max_position_embeddings", _POSITIONS[family]),
        hidden=hidden,
        heads=heads,
        key_heads=key_heads,
        head_size=head_size,
        feed_forward=whole_number(config, "intermediate_size"),
        layers=layers,
        epsilon=positive_number(config, "rms_norm_eps", 1e-6),
        tied=flag(config, "tie_word_embeddings", False),
        windows=_windows(config, layers),
        frequencies=_frequencies(config, head_size),
    )


def _check_architectures(names: Any) -> None:
    """A classifier or a reward model has the layers of a language model, but no head that says what follows."""
    if names is None:
        return
    if not isinstance(names, list) or not any(str(name).endswith("ForCausalLM") for name in names):
        raise ValueError(f"config.json: architectures must have one that ends in ForCausalLM, got {names!r}")


def _head_size(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    if config["model_type"] == "qwen3" or config.get("head_dim") is not None:
        return whole_number(config, "head_dim", 128)
    if hidden % heads:
        raise ValueError(
            f"config.json: hidden_size must be a multiple of num_attention_heads, got {hidden} and {heads}"
        )
    return hidden // heads


def _key_heads(config: Mapping[str, Any], heads: int) -> int:
    """Where the field is null there is one for each head; where it is absent the family says."""
    absent = "num_key_value_heads" not in config
    return whole_number(config, "num_key_value_heads", _KEY_HEADS.get(config["model_type"], heads) if absent else heads)


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    kinds = config.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != layers):
        raise ValueError(f"config.json: layer_types must be a list of {layers} layers, got {kinds!r}")
    family = config["model_type"]
    mistral = family == "mistral"
    if family == "llama" or (not mistral and not flag(config, "use_sliding_window", False)):
        return (0,) * layers
    everywhere = "sliding_window" in config and config["sliding_window"] is None
    window = 0 if everywhere else whole_number(config, "sliding_window", 4096)
    if kinds is not None:
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    whole = 0 if mistral else config.get("max_window_layers", 28)
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < 0:
        raise ValueError(f"config.json: max_window_layers must be a whole number of at least 0, got {whole!r}")
    return tuple(0 if i < whole else window for i in range(layers))


def _frequencies(config: Mapping[str, Any], head_size: int) -> NDArray[np.float32]:
    """Of the rotary embedding, as it is or stretched for longer texts: "linear" (Chen et al. 2023), "llama3", which
    stretches long wavelengths alone (Grattafiori et al. 2024), or "longrope", each by a factor of its own (Ding et al.
    2024), if those are the same for short texts and long ones."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ValueError(f"config.json: rope_parameters or rope_scaling must be an object, got {scaling!r}")
    base = np.float32(positive_number(scaling, "rope_theta", positive_number(config, "rope_theta", 10_000.0)))
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    plain = (1.0 / base ** (np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size))).astype(np.float32)
    if kind == "default":
        return plain
    if kind == "longrope":
        return plain / _own_factors(scaling, head_size)
    if kind not in ("linear", "llama3"):
        raise ValueError(f"config.json: rope_type must be 'default', 'linear', 'llama3' or 'longrope', got {kind!r}")
    factor = positive_number(scaling, "factor")
    if kind == "linear":
        return plain / np.float32(factor)
    low, high = positive_number(scaling, "low_freq_factor"), positive_number(scaling, "high_freq_factor")
    if low >= high:
        raise ValueError(f"config.json: low_freq_factor must be below high_freq_factor, got {low} and {high}")
    turns = positive_number(scaling, "original_max_position_embeddings") * plain / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    mixed: NDArray[np.float32] = ((1 - share) * plain / factor + share * plain).astype(np.float32)
    return mixed


def _own_factors(scaling: Mapping[str, Any], head_size: int) -> NDArray[np.float32]:
    """Of each frequency, as "longrope" has them."""
    factors = scaling.get("short_factor")
    if factors != scaling.get("long_factor") or scaling.get("attention_factor") != 1:
        raise ValueError(
            "config.json: of rope_type 'longrope' short_factor and long_factor must be the same, and attention_factor 1"
        )
    try:
        found = np.array(factors, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.shape != (head_size // 2,) or not (found > 0).all():
        raise ValueError(f"config.json: short_factor must be {head_size // 2} numbers above 0, got {factors!r}")
    return found
