"""The hosted models as ONNX graphs, from the same weights, for the engines that they are compared with.

Sizes are fixed, which lets an engine plan everything beforehand. `fused` graphs use ONNX Runtime's own operators for
attention, GELU with its bias, and layer norm with its residual, which its optimiser would find in an exported model;
the others use ONNX's alone, in which OpenVINO finds its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.zoo.bert_shape import BertShape, read_shape
from models.zoo.fashion import folded_norms
from models.zoo.fashion_shape import SHAPE
from models.zoo.fashion_weights import Calibration, FashionWeights
from models.zoo.folder import WEIGHTS, Tensors, read_json

OPSET = 20
FUSED_DOMAIN = "com.microsoft"


class Graph:
    """A graph that grows by a node at a time; names are made up."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """The name of the node's output, or their list."""
        names = [f"{operator}{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def model(self, inputs: Sequence[Any], output: str, shape: Sequence[int]) -> Any:
        """The finished model; its output is called "output"."""
        self._nodes.append(helper.make_node("Identity", [output], ["output"]))
        result = helper.make_tensor_value_info("output", TensorProto.FLOAT, list(shape))
        graph = helper.make_graph(self._nodes, "model", list(inputs), [result], self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def bert_graph(folder: Path, tokens: int, fused: bool) -> Any:
    """Input `ids`, int64 [1, tokens]; output the embedding, float32 [1, hidden]."""
    shape = read_shape(read_json(folder / "config.json"))
    tensors = Tensors(folder / WEIGHTS, prefix="bert.")
    graph = Graph()

    def linear(x: str, *names: str) -> tuple[str, str]:
        """The product, and its bias, which is not added yet."""
        weight = np.concatenate([tensors[f"{name}.weight"] for name in names]).T
        bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
        return graph.node("MatMul", x, graph.constant(weight)), graph.constant(bias)

    def norm(x: str, name: str, residual: str | None = None, bias: str | None = None) -> str:
        parameters = [graph.constant(tensors[f"{name}.{part}"]) for part in ("weight", "bias")]
        if residual is None or bias is None:
            return str(graph.node("LayerNormalization", x, *parameters, epsilon=shape.epsilon))
        if fused:
            inputs = (x, residual, *parameters, bias)
            return str(graph.node("SkipLayerNormalization", *inputs, domain=FUSED_DOMAIN, epsilon=shape.epsilon))
        summed = graph.node("Add", graph.node("Add", x, bias), residual)
        return str(graph.node("LayerNormalization", summed, *parameters, epsilon=shape.epsilon))

    def attention(x: str, name: str) -> str:
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        if not fused:
            return _attention(graph, graph.node("Add", *linear(x, *parts)), shape, tokens)
        weight = np.concatenate([tensors[f"{part}.weight"] for part in parts]).T
        bias = np.concatenate([tensors[f"{part}.bias"] for part in parts])
        inputs = (x, graph.constant(weight), graph.constant(bias))
        return str(graph.node("Attention", *inputs, domain=FUSED_DOMAIN, num_heads=shape.heads))

    def gelu(x: str, bias: str) -> str:
        if fused:
            return str(graph.node("BiasGelu", x, bias, domain=FUSED_DOMAIN))
        return str(graph.node("Gelu", graph.node("Add", x, bias)))

    places = tensors["embeddings.position_embeddings.weight"][:tokens]
    places = places + tensors["embeddings.token_type_embeddings.weight"][0]
    words = graph.node("Gather", graph.constant(tensors["embeddings.word_embeddings.weight"]), "ids")
    x = norm(graph.node("Add", words, graph.constant(places)), "embeddings.LayerNorm")
    for i in range(shape.layers):
        name = f"encoder.layer.{i}"
        attended, bias = linear(attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
        x = norm(attended, f"{name}.attention.output.LayerNorm", x, bias)
        neurons = gelu(*linear(x, f"{name}.intermediate.dense"))
        returned, bias = linear(neurons, f"{name}.output.dense")
        x = norm(returned, f"{name}.output.LayerNorm", x, bias)
    mean = graph.node("ReduceMean", x, graph.constant(np.array([1])), keepdims=0)
    embedding = graph.node("LpNormalization", mean, axis=-1, p=2)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, tokens])
    return graph.model([ids], embedding, [1, shape.hidden])


def _attention(graph: Graph, qkv: str, shape: BertShape, tokens: int) -> str:
    split = graph.node("Split", qkv, axis=2, num_outputs=3, outputs=3)
    heads = graph.constant(np.array([1, tokens, shape.heads, shape.head_size]))
    queries, keys, values = (
        graph.node("Transpose", graph.node("Reshape", part, heads), perm=perm)
        for part, perm in zip(split, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scale = graph.constant(np.float32(shape.head_size**-0.5))
    scores = graph.node("Mul", graph.node("MatMul", queries, keys), scale)
    attended = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
    merged = graph.node("Transpose", attended, perm=[0, 2, 1, 3])
    return str(graph.node("Reshape", merged, graph.constant(np.array([1, tokens, shape.hidden]))))


def fashion_graph(weights: FashionWeights, calibration: Calibration) -> Any:
    """The plain network, all of it. Input `pixels`, float32 [1, 1, 28, 28], normalised; output logits, float32
    [1, 10]."""
    norms, graph = folded_norms(weights, calibration, 0.0), Graph()
    x = "pixels"
    for layer, stored, (scale, shift) in zip(SHAPE.layers, weights.layers, norms, strict=True):
        kernel = graph.constant(stored.weight * scale[:, None, None, None])
        x = graph.node("Relu", graph.node("Conv", x, kernel, graph.constant(shift), pads=[1, 1, 1, 1]))
        if layer.pool:
            x = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    means = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    head = (graph.constant(weights.head_weight.T), graph.constant(weights.head_bias))
    logits = graph.node("Gemm", means, *head)
    size = SHAPE.layers[0].size
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 1, size, size])
    return graph.model([pixels], logits, [1, SHAPE.classes])


def checked(model: Any) -> bytes:
    """The model as bytes. Raises `onnx.checker.ValidationError` where it is none; operators of other domains are not
    looked at."""
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised
