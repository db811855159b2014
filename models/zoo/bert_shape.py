"""The family of BERT: what `config.json` tells of an encoder's shape, and what each member calls its tensors.

All have the same layers. They differ before the first: RoBERTa (Liu et al. 2019), XLM-R and CamemBERT number positions
from `pad_token_id` + 1; DistilBERT (Sanh et al. 2019) has no types of tokens; MPNet (Song et al. 2020) has neither
types nor positions from zero, and adds to its scores a bias for how far apart two positions are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.zoo.config_fields import positive_number, whole_number

MOST_LOOKED_UP = 1 << 28
"""Bytes of the first layer's queries, keys and values of all words, in floats: 12 · hidden · vocabulary. Those of
MiniLM are 141 MB, and save it a twenty-fifth of its work."""


@dataclass(frozen=True, slots=True)
class BertShape:
    """`feed_forward` is the number of neurons of a layer, `positions` the longest sequence."""

    vocabulary: int
    positions: int
    hidden: int
    heads: int
    feed_forward: int
    layers: int
    epsilon: float
    first_position: int = 0
    """The row of the position table that the first token gets."""
    distances: int = 0
    """Buckets of distances that scores have a bias for; 0: none."""

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def looks_up(self) -> bool:
        """Whether queries, keys and values of the first layer are looked up: no other is given what its tokens alone
        tell."""
        return self.vocabulary * 3 * self.hidden * 4 <= MOST_LOOKED_UP

    def looked_up_macs(self, tokens: int) -> int:
        """What is not multiplied because of that."""
        return self.qkv_macs(tokens, self.head_size, self.heads) if self.looks_up else 0

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of a sequence."""
        first, second = (
            self.attention_macs(tokens, tokens, self.head_size, self.heads),
            self.feed_forward_macs(tokens, self.feed_forward),
        )
        return self.layers * (first + second) - self.looked_up_macs(tokens)

    def qkv_macs(self, positions: int, head_size: int, heads: int) -> int:
        """Those of one layer's queries, keys and values, of so many heads that score with so many channels each."""
        return positions * self.hidden * heads * (2 * head_size + self.head_size)

    def attention_macs(self, positions: int, keys: int, head_size: int, heads: int) -> int:
        """Those of its first half, with the same, whose positions attend to so many."""
        attended = positions * keys * heads * (head_size + self.head_size)
        output = positions * self.hidden * heads * self.head_size
        return self.qkv_macs(positions, head_size, heads) + attended + output

    def heads_gate_macs(self) -> int:
        """Those of the gate on a layer's heads."""
        return self.hidden * self.heads

    def feed_forward_macs(self, positions: int, neurons: int) -> int:
        """Those of its second half, with so many neurons."""
        return positions * self.hidden * 2 * neurons

    def gate_macs(self, positions: int) -> int:
        """Those of a gate on the positions: all but the first are compared with each other."""
        return (positions - 1) * (positions - 2) // 2 * self.hidden


@dataclass(frozen=True, slots=True)
class Naming:
    """What a member calls its parts: `prefix` is that of a checkpoint with a head, `layers` stands before a layer's
    number, the rest behind it."""

    prefix: str
    layers: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


_ROBERTA = Naming("roberta.")
NAMINGS: Mapping[str, Naming] = MappingProxyType(
    {
        "bert": Naming("bert."),
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "distilbert": Naming(
            prefix="distilbert.",
            layers="transformer.layer",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            output="attention.out_lin",
            attention_norm="sa_layer_norm",
            up="ffn.lin1",
            down="ffn.lin2",
            norm="output_layer_norm",
        ),
        "mpnet": Naming(
            prefix="mpnet.",
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            output="attention.attn.o",
            attention_norm="attention.LayerNorm",
        ),
    }
)
"""By `model_type`."""

_DISTILBERT_KEYS = MappingProxyType(
    {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "num_hidden_layers": "n_layers",
        "hidden_act": "activation",
    }
)


def read_shape(config: Mapping[str, Any]) -> BertShape:
    """The shape that a `config.json` tells of; what hardly any leaves out is as transformers has it where one does.
    Raises `ValueError` naming the field, for another architecture too."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in NAMINGS:
        raise ValueError(f"config.json: model_type must be one of {', '.join(NAMINGS)}, got {kind!r}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"config.json: position_embedding_type must be 'absolute', got {config['position_embedding_type']!r}"
        )
    if config.get("is_decoder"):
        raise ValueError("config.json: is_decoder is true, and only encoders can be hosted")
    names = _DISTILBERT_KEYS if kind == "distilbert" else {}

    def count(key: str, default: int | None = None) -> int:
        return whole_number(config, names.get(key, key), default)

    activation = names.get("hidden_act", "hidden_act")
    if config.get(activation, "gelu") != "gelu":
        raise ValueError(f"config.json: {activation} must be 'gelu', got {config[activation]!r}")
    hidden, heads = count("hidden_size"), count("num_attention_heads")
    if hidden % heads:
        raise ValueError(f"config.json: {heads} heads do not divide the hidden size of {hidden}")
    first = _first_position(kind, config)
    positions = count("max_position_embeddings", 512)
    if positions <= first:
        raise ValueError(f"config.json: max_position_embeddings must be above {first}, got {positions}")
    return BertShape(
        vocabulary=count("vocab_size"),
        positions=positions - first,
        hidden=hidden,
        heads=heads,
        feed_forward=count("intermediate_size"),
        layers=count("num_hidden_layers"),
        epsilon=1e-12 if kind == "distilbert" else positive_number(config, "layer_norm_eps", 1e-12),
        first_position=first,
        distances=count("relative_attention_num_buckets", 32) if kind == "mpnet" else 0,
    )


def _first_position(kind: str, config: Mapping[str, Any]) -> int:
    if kind == "mpnet":  # whatever its config says
        return 2
    if NAMINGS[kind] is not _ROBERTA:
        return 0
    padding = config.get("pad_token_id", 1)
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"config.json: pad_token_id must be a whole number of at least 0, got {padding!r}")
    return padding + 1
