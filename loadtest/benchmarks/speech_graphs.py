"""Whisper's encoder as an ONNX graph, from the same weights; see `model_graphs`."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from loadtest.benchmarks.model_graphs import FUSED_DOMAIN, Graph
from models.zoo.whisper_files import read_whisper


def encoder_graph(folder: Path, fused: bool) -> Any:
    """Input `spectrum`, float32 [1, mels, frames]; output the hidden states, float32 [1, positions, hidden]."""
    files = read_whisper(folder)
    shape, tensors, graph = files.shape, files.tensors, Graph()
    size = shape.hidden // shape.encoder_heads

    def bias_of(name: str) -> Any:
        return np.zeros(shape.hidden, np.float32) if name.endswith("k_proj") else tensors[f"{name}.bias"]

    def joined(*names: str) -> tuple[str, str]:
        weight = np.concatenate([tensors[f"{name}.weight"] for name in names]).T
        return graph.constant(weight), graph.constant(np.concatenate([bias_of(name) for name in names]))

    def linear(x: str, *names: str) -> tuple[str, str]:
        """The product, and its bias, which is not added yet."""
        weight, bias = joined(*names)
        return graph.node("MatMul", x, weight), bias

    def norm(x: str, name: str) -> str:
        parameters = [graph.constant(tensors[f"{name}.{part}"]) for part in ("weight", "bias")]
        return str(graph.node("LayerNormalization", x, *parameters, epsilon=1e-5))

    def gelu(x: str, bias: str) -> str:
        if fused:
            return str(graph.node("BiasGelu", x, bias, domain=FUSED_DOMAIN))
        return str(graph.node("Gelu", graph.node("Add", x, bias)))

    def attention(x: str, name: str) -> str:
        parts = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        if fused:
            return str(graph.node("Attention", x, *joined(*parts), domain=FUSED_DOMAIN, num_heads=shape.encoder_heads))
        split = graph.node("Split", graph.node("Add", *linear(x, *parts)), axis=2, num_outputs=3, outputs=3)
        apart = graph.constant(np.array([1, shape.positions, shape.encoder_heads, size]))
        queries, keys, values = (
            graph.node("Transpose", graph.node("Reshape", part, apart), perm=perm)
            for part, perm in zip(split, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scores = graph.node("Mul", graph.node("MatMul", queries, keys), graph.constant(np.float32(size**-0.5)))
        mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
        together = graph.constant(np.array([1, shape.positions, shape.hidden]))
        return str(graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), together))

    x = "spectrum"
    for i, stride in ((1, 1), (2, 2)):
        weight, bias = (graph.constant(tensors[f"encoder.conv{i}.{part}"]) for part in ("weight", "bias"))
        x = graph.node("Gelu", graph.node("Conv", x, weight, bias, pads=[1, 1], strides=[stride]))
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    x = graph.node("Add", x, graph.constant(tensors["encoder.embed_positions.weight"]))
    for i in range(shape.encoder_layers):
        name = f"encoder.layers.{i}"
        mixed, bias = linear(attention(norm(x, f"{name}.self_attn_layer_norm"), name), f"{name}.self_attn.out_proj")
        x = graph.node("Add", x, graph.node("Add", mixed, bias))
        neurons = gelu(*linear(norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"))
        returned, bias = linear(neurons, f"{name}.fc2")
        x = graph.node("Add", x, graph.node("Add", returned, bias))
    states = norm(x, "encoder.layer_norm")
    spectrum = helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, [1, shape.mels, shape.frames])
    return graph.model([spectrum], states, [1, shape.positions, shape.hidden])
