"""One layer of a decoder of the Llama family: its packed weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from models import kernels
from models.zoo.llama_gates import gate_name, norms_name
from models.zoo.llama_packing import Array, Packing, optional
from models.zoo.llama_shape import LlamaShape


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer's weights, in the order of their use; the norms of queries and keys are of one head, or None."""

    attention_norm: Array
    qkv: kernels.RowMatrix
    query_norm: Array | None
    key_norm: Array | None
    output: kernels.RowMatrix
    norm: Array
    gate: kernels.RowMatrix
    up: kernels.RowMatrix
    down: kernels.RowMatrix
    window: int

    def with_coarse(
        self,
        make: Callable[[Sequence[str], Callable[[Array], kernels.CoarseMatrix]], kernels.CoarseMatrix],
        pack: Callable[[str, Array], kernels.CoarseMatrix],
        index: int,
    ) -> "LlamaLayer":
        """The same, of that number, with coarse weights beside those of its products, which are made of their names by
        what packs each of them."""
        made = {
            part: getattr(self, part).with_coarse(make(names, partial(pack, part)))
            for part, names in product_names(index).items()
        }
        return replace(self, **made)


def product_names(layer: int) -> dict[str, tuple[str, ...]]:
    """Of each product of a layer, by its name in `LlamaLayer`, those linear layers of the checkpoint that it is."""
    name = f"model.layers.{layer}"
    attention, feed_forward = f"{name}.self_attn", f"{name}.mlp"
    return {
        "qkv": tuple(f"{attention}.{part}_proj" for part in "qkv"),
        "output": (f"{attention}.o_proj",),
        "gate": (f"{feed_forward}.gate_proj",),
        "up": (f"{feed_forward}.up_proj",),
        "down": (f"{feed_forward}.down_proj",),
    }


def pack_layer(packing: Packing, shape: LlamaShape, index: int, calibration: Mapping[str, Array]) -> LlamaLayer:
    """A layer, by its number, without coarse weights."""
    name, products = f"model.layers.{index}", product_names(index)
    weights, attention = packing.weights, f"{name}.self_attn"

    def gated(gate: str, part: str) -> kernels.RowMatrix:
        known, matrix = gate_name(index, gate), packing.matrix("inputs", *products[part])
        return matrix.with_means(calibration.get(known), calibration.get(norms_name(known)))

    return LlamaLayer(
        attention_norm=weights[f"{name}.input_layernorm.weight"],
        qkv=gated("attention", "qkv"),
        query_norm=optional(weights, f"{attention}.q_norm.weight"),
        key_norm=optional(weights, f"{attention}.k_norm.weight"),
        output=gated("output", "output"),
        norm=weights[f"{name}.post_attention_layernorm.weight"],
        gate=gated("feed_forward", "gate"),
        up=packing.matrix("outputs", *products["up"]),
        down=gated("down", "down"),
        window=shape.windows[index],
    )


def decoder_layer(layer: LlamaLayer, neuron_norms: Array | None, care: Array | None) -> kernels.DecoderLayer:
    """The same as a step's kernels take it, with what its gates on neurons and its tokens' care are told by."""
    return kernels.decoder_layer(
        attention_norm=layer.attention_norm,
        qkv=layer.qkv,
        query_norm=layer.query_norm,
        key_norm=layer.key_norm,
        output=layer.output,
        norm=layer.norm,
        gate=layer.gate,
        up=layer.up,
        down=layer.down,
        neuron_norms=neuron_norms,
        care=care,
        window=layer.window,
    )
