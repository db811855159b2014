"""A Hugging Face folder, as it lies on disk: `config.json`, `tokenizer.json` and `model.safetensors`.

Tensors are views of the mapped file where they are float32 already, so that a large embedding table takes no memory
that the system could not take back.
"""

import hashlib
import json
import mmap
from collections import abc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
WEIGHTS = "model.safetensors"


class Tensors(Mapping[str, Array]):
    """The tensors of a safetensors file, float32, read when they are asked for. A prefix that all names of a checkpoint
    share, such as "bert.", is left out where it is named.

    Raises `FileNotFoundError`, or `ValueError` for a file that is no safetensors.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            start = 8 + int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8:start])
            header.pop("__metadata__", None)
            self._entries: dict[str, dict[str, Any]] = {
                name.removeprefix(prefix): entry for name, entry in header.items()
            }
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no safetensors file ({error})") from None
        self._start = start

    def __getitem__(self, name: str) -> Array:
        stored, shape = self._stored(name)
        return _floats(stored).reshape(shape)

    def rows(self, name: str, ids: abc.Sequence[int]) -> Array:
        """Rows of a matrix, without reading the others. Raises `ValueError` for a tensor that is none."""
        stored, shape = self._stored(name)
        if len(shape) != 2:
            raise ValueError(f"{self._path}: tensor {name!r} must be a matrix, got {shape}")
        return _floats(stored.reshape(shape)[np.asarray(ids, np.intp)])

    def _stored(self, name: str) -> tuple[NDArray[Any], list[int]]:
        """A view of the file, flat, and the tensor's shape."""
        if name not in self._entries:
            raise ValueError(f"{self._path} has no tensor {name!r}")
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"{self._path}: tensor {name!r} has the unexpected type {entry['dtype']}")
        stored = np.frombuffer(self._map, kind, (end - begin) // np.dtype(kind).itemsize, self._start + begin)
        return stored, entry["shape"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._map).hexdigest()


def _floats(stored: NDArray[Any]) -> Array:
    """In float32; whole numbers are the bits of bf16, which are the upper half of a float32's."""
    if stored.dtype == np.uint16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `FileNotFoundError`, or `ValueError` for anything else in the file."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content
