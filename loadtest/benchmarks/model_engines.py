"""The engines that a hosted model is compared with, each at its best on one thread: ONNX Runtime, OpenVINO and torch.

An engine is a function from one input to its output. Where a package is missing it raises `ModuleNotFoundError`.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.zoo.bert_shape import read_shape
from models.zoo.fashion import folded_norms
from models.zoo.fashion_shape import SHAPE
from models.zoo.fashion_weights import Calibration, FashionWeights
from models.zoo.folder import WEIGHTS, Tensors, read_json

Engine = Callable[[NDArray[Any]], NDArray[np.float32]]


def onnx_runtime(model: bytes, datatype: str) -> Engine:
    """ONNX Runtime with all of its graph optimisations; int8 by its dynamic quantisation of the weights."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if datatype == "int8":
        model = _quantised(model)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: NDArray[Any]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {name: x})[0]
        return output

    return run


def _quantised(model: bytes) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        # Behind operators of its own domain it cannot infer the types of tensors, which are all the same.
        types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(
            onnx.load_from_string(model), target, weight_type=QuantType.QInt8, per_channel=True, extra_options=types
        )
        return target.read_bytes()


def openvino(model: bytes, datatype: str) -> Engine:
    """OpenVINO on the processor, tuned for latency."""
    import openvino as runtime

    core = runtime.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[datatype],
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(model), "CPU", hints).create_infer_request()

    def run(x: NDArray[Any]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = request.infer([x], share_inputs=True)[0]
        return output

    return run


def torch_bert(folder: Path, datatype: str) -> Engine:
    """The encoder in eager torch: token ids [1, n] in, the embedding [1, hidden] out."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[datatype]
    shape = read_shape(read_json(folder / "config.json"))
    stored = Tensors(folder / WEIGHTS, prefix="bert.")
    tensors = {name: torch.tensor(stored[name]).to(kind) for name in stored if "position_ids" not in name}

    def joined(layer: str, part: str) -> Any:
        names = (f"{layer}.attention.self.{which}.{part}" for which in ("query", "key", "value"))
        return torch.cat([tensors[name] for name in names])

    layers = [f"encoder.layer.{i}" for i in range(shape.layers)]
    qkv = [(joined(layer, "weight"), joined(layer, "bias")) for layer in layers]

    def linear(x: Any, name: str) -> Any:
        return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return functional.layer_norm(x, (shape.hidden,), weight, bias, shape.epsilon)

    @torch.inference_mode()
    def run(ids: NDArray[Any]) -> NDArray[np.float32]:
        tokens = ids.shape[1]
        words = tensors["embeddings.word_embeddings.weight"][torch.from_numpy(ids)]
        places = tensors["embeddings.position_embeddings.weight"][:tokens]
        x = norm(words + places + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer, (weight, bias) in zip(layers, qkv, strict=True):
            parts = functional.linear(x, weight, bias).view(1, tokens, 3, shape.heads, -1)
            attended = functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
            merged = attended.transpose(1, 2).reshape(1, tokens, -1)
            x = norm(x + linear(merged, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            neurons = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(x + linear(neurons, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return np.asarray(functional.normalize(x.mean(1).float()).numpy())

    return run


def torch_fashion(weights: FashionWeights, calibration: Calibration, datatype: str) -> Engine:
    """The plain image network in eager torch, channels last: pixels [1, 1, 28, 28] in, logits [1, 10] out."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[datatype]
    norms = folded_norms(weights, calibration, 0.0)
    layers = [
        (
            torch.tensor(stored.weight * scale[:, None, None, None]).to(kind, memory_format=torch.channels_last),
            torch.tensor(shift).to(kind),
            layer.pool,
        )
        for layer, stored, (scale, shift) in zip(SHAPE.layers, weights.layers, norms, strict=True)
    ]
    head = torch.tensor(weights.head_weight).to(kind), torch.tensor(weights.head_bias).to(kind)

    @torch.inference_mode()
    def run(pixels: NDArray[Any]) -> NDArray[np.float32]:
        x = torch.from_numpy(pixels).to(kind, memory_format=torch.channels_last)
        for weight, bias, pool in layers:
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
            if pool:
                x = functional.max_pool2d(x, 2)
        return np.asarray(functional.linear(x.mean((2, 3)), *head).float().numpy())

    return run
