"""The engines that a language model is compared with, each on one thread: transformers on torch, and llama.cpp. Each is
a function from the tokens [n] of a text to the logits [vocabulary] of what follows; all but the last token are computed
when another text came before, so that a second call is one step."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks.model_engines import Engine

QUANTISATION = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
"""What comes nearest in llama.cpp."""


def torch_decoder(folder: Path, datatype: str) -> Engine:
    """transformers, eager, with its own cache."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    torch.set_num_threads(1)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[datatype]
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
    model.eval()
    caches: dict[bytes, Any] = {}

    @torch.inference_mode()
    def run(ids: NDArray[Any]) -> NDArray[np.float32]:
        tokens = torch.from_numpy(ids)[None]
        cache = caches.get(ids.tobytes())
        if cache is None:
            cache = caches[ids.tobytes()] = DynamicCache()
            model(tokens[:, :-1], past_key_values=cache)
        logits = model(tokens[:, -1:], past_key_values=cache).logits[0, -1]
        cache.crop(-1)
        return np.asarray(logits.float().numpy())

    return run


def llama_cpp(source: Path, home: Path, datatype: str, longest: int) -> Engine:
    """llama.cpp on the weights of a GGUF file, quantised anew to what comes nearest to the datatype; the file is kept
    under `home`."""
    import llama_cpp

    path = quantised(source, home / "bench" / f"{source.stem}.{QUANTISATION[datatype]}.gguf", QUANTISATION[datatype])
    model = llama_cpp.Llama(
        str(path), n_ctx=max(64, longest + 8), n_threads=1, n_threads_batch=1, logits_all=False, verbose=False
    )
    held: list[bytes] = []  # the text whose keys and values it has: one model for all, as ours is

    def run(ids: NDArray[Any]) -> NDArray[np.float32]:
        if held != [ids.tobytes()]:
            model.reset()
            # A token at a time: llama-cpp-python 0.3.36 ends in an illegal instruction of the tile unit, whose
            # configuration it does not load, where it multiplies several rows.
            for token in ids[:-1].tolist():
                model.eval([token])
            held[:] = [ids.tobytes()]
        model.n_tokens = len(ids) - 1  # what was there after it is dropped by the next call
        model.eval([int(ids[-1])])
        pointer = llama_cpp.llama_get_logits(model.ctx)
        return np.ctypeslib.as_array(pointer, shape=(model.n_vocab(),)).astype(np.float32)

    return run


def quantised(source: Path, target: Path, kind: str) -> Path:
    """A GGUF file with the content of another and its matrices in another type: made once."""
    if target.exists():
        return target
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    writer = GGUFWriter(partial, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        own = GGMLQuantizationType[kind] if weight.ndim == 2 else GGMLQuantizationType.F32
        data = weight if own == GGMLQuantizationType.F32 else quantize(weight, own)
        writer.add_tensor(tensor.name, data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.move(partial, target)
    return target


def able(engine: str, datatype: str, engines: Sequence[str]) -> bool:
    """Whether an engine was asked for and has the datatype."""
    known = {"torch": ("fp32", "bf16"), "llama-cpp": tuple(QUANTISATION)}
    return engine in engines and datatype in known[engine]
