"""Whisper's encoder in eager torch, for `sluice bench model`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks.model_engines import Engine
from models.zoo.whisper_files import read_whisper


def torch_encoder(folder: Path, datatype: str) -> Engine:
    """A spectrum [frames, mels] in, the hidden states [positions, hidden] out."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[datatype]
    files = read_whisper(folder)
    shape = files.shape
    tensors = {
        name: torch.tensor(files.tensors[name]).to(kind) for name in files.tensors if name.startswith("encoder.")
    }

    def linear(x: Any, name: str) -> Any:
        return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, (shape.hidden,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)

    def convolved(x: Any, name: str, stride: int) -> Any:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return functional.gelu(functional.conv1d(x, weight, bias, stride, padding=1))

    @torch.inference_mode()
    def run(spectrum: NDArray[Any]) -> NDArray[np.float32]:
        x = torch.from_numpy(np.ascontiguousarray(spectrum.T))[None].to(kind)
        x = convolved(convolved(x, "encoder.conv1", 1), "encoder.conv2", 2).transpose(1, 2)
        x = x + tensors["encoder.embed_positions.weight"]
        for i in range(shape.encoder_layers):
            name = f"encoder.layers.{i}"
            rows = norm(x, f"{name}.self_attn_layer_norm")
            heads = [
                linear(rows, f"{name}.self_attn.{part}_proj")
                .view(1, -1, shape.encoder_heads, shape.hidden // shape.encoder_heads)
                .transpose(1, 2)
                for part in "qkv"
            ]
            mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(x.shape)
            x = x + linear(mixed, f"{name}.self_attn.out_proj")
            neurons = functional.gelu(linear(norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"))
            x = x + linear(neurons, f"{name}.fc2")
        return np.asarray(norm(x, "encoder.layer_norm")[0].float().numpy())

    return run
