"""A Hugging Face folder, as it lies on disk: `config.json`, `tokenizer.json` and `model.safetensors`, or several such
files with an index.

Tensors are views of the mapped file where they are float32 already, so that a large embedding table takes no memory
that the system could not take back.
"""

import hashlib
import json
import math
import mmap
from collections import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_HASHED_BYTES = 16 * 1024 * 1024
_KINDS: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
)
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class _File:
    """A mapped safetensors file; `start` is where its tensors begin."""

    path: Path
    content: mmap.mmap
    start: int
    entries: dict[str, dict[str, Any]]


class Tensors(Mapping[str, Array]):
    """The tensors of a safetensors file, or of those that an index names, float32, read when they are asked for. A
    prefix that all names of a checkpoint share, such as "bert.", is left out where it is named.

    Raises `FileNotFoundError`, or `ValueError` for a file that is no safetensors, or not all of it.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._path = path
        self._files = [_read(part) for part in weights_files(path)]
        self._places = {name.removeprefix(prefix): (file, name) for file in self._files for name in file.entries}

    def __getitem__(self, name: str) -> Array:
        stored, shape = self._stored(name)
        return _floats(stored).reshape(shape)

    def shaped(self, name: str, shape: tuple[int, ...], fields: str) -> Array:
        """A tensor that must have this shape, by these fields of `config.json`. Raises `ValueError` for another."""
        tensor = self[name]
        if tensor.shape != shape:
            raise ValueError(
                f"{self._path}: tensor {name!r} is {list(tensor.shape)}; config.json says {list(shape)} ({fields})"
            )
        return tensor

    def rows(self, name: str, ids: abc.Sequence[int]) -> Array:
        """Rows of a matrix, without reading the others. Raises `ValueError` for a tensor that is none."""
        stored, shape = self._stored(name)
        if len(shape) != 2:
            raise ValueError(f"{self._path}: tensor {name!r} must be a matrix, got {shape}")
        return _floats(stored.reshape(shape)[np.asarray(ids, np.intp)])

    def _stored(self, name: str) -> tuple[NDArray[Any], list[int]]:
        """A view of the file, flat, and the tensor's shape."""
        if name not in self._places:
            raise ValueError(f"{self._path} has no tensor {name!r}")
        file, stored_name = self._places[name]
        entry = file.entries[stored_name]
        begin, end = entry["data_offsets"]
        kind = _KINDS.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"{file.path}: tensor {stored_name!r} has the unexpected type {entry['dtype']}")
        stored = np.frombuffer(file.content, kind, (end - begin) // kind.itemsize, file.start + begin)
        return stored, entry["shape"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or of all of them one after the other."""
        whole = hashlib.sha256()
        for file in self._files:
            with memoryview(file.content) as content:
                for start in range(0, len(content), _HASHED_BYTES):
                    whole.update(content[start : start + _HASHED_BYTES])
                    _give_back(file.content, start, min(_HASHED_BYTES, len(content) - start))
        return whole.hexdigest()

    def release(self) -> None:
        """Gives the memory of what was read back to the system, which reads it again where it is asked for again."""
        for file in self._files:
            _give_back(file.content, 0, len(file.content))


def _give_back(content: mmap.mmap, start: int, length: int) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):  # not everywhere; the system does without where memory is short
        content.madvise(mmap.MADV_DONTNEED, start, length)


def weights_path(folder: Path) -> Path:
    """The folder's safetensors file, or the index of its several. Raises `FileNotFoundError`."""
    for name in (WEIGHTS, INDEX):
        if (folder / name).exists():
            return folder / name
    hint = ""
    if any((folder / name).exists() for name in ("pytorch_model.bin", "pytorch_model.bin.index.json")):
        hint = "; pytorch_model.bin is not read: save the model with transformers' save_pretrained"
    raise FileNotFoundError(f"{folder} has neither {WEIGHTS} nor {INDEX}{hint}")


def weights_files(path: Path) -> list[Path]:
    """The safetensors files of `weights_path`: itself, or those that an index names. Raises as `Tensors` does."""
    return _parts(path) if path.suffix == ".json" else [path]


def weights_digest(path: Path) -> str:
    """`Tensors.digest` of a safetensors file or an index."""
    return Tensors(path).digest


def _floats(stored: NDArray[Any]) -> Array:
    """In float32; whole numbers are the bits of bf16, which are the upper half of a float32's. Tensors may lie anywhere
    in a file, and the kernels read whole words: those between two are copied."""
    if stored.dtype == np.uint16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return np.require(stored, np.float32, "A")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `FileNotFoundError`, or `ValueError` for anything else in the file."""
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def read_any_json(path: Path) -> Any:
    """Raises `FileNotFoundError`, or `ValueError` for a file that is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def _parts(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise ValueError(f"{index}: weight_map must name files of the folder, got {name!r}")
    paths = [index.parent / name for name in sorted(set(weight_map.values()))]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; {index.name} names it in weight_map")
    return paths


def _read(path: Path) -> _File:
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ValueError(f"{path} is no safetensors file (it is empty)") from None
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        ends = [_end(name, entry) for name, entry in header.items()]
    except (ValueError, AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is no safetensors file ({error}){pointer_hint(path)}") from None
    wanted = start + max(ends, default=0)
    if len(content) < wanted:
        raise ValueError(f"{path} is torn: it has {len(content)} bytes of {wanted}; copy or download it again")
    return _File(path, content, start, header)


def _end(name: str, entry: Any) -> int:
    """Of a tensor's bytes, which are to be as many as its shape and type say, where those are known."""
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {name!r} must be an object, got {entry!r}")
    if lacking := next((field for field in ("dtype", "shape", "data_offsets") if field not in entry), None):
        raise ValueError(f"tensor {name!r} lacks {lacking}")
    offsets, shape = entry["data_offsets"], entry["shape"]
    fits = _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1]
    if fits and entry["dtype"] in _KINDS:
        fits = offsets[1] - offsets[0] == math.prod(shape) * _KINDS[entry["dtype"]].itemsize
    if not fits:
        raise ValueError(f"tensor {name!r} has the shape {shape} and the data_offsets {offsets}")
    return int(offsets[1])


def _are_counts(numbers: Any) -> bool:
    """Whether this is a list of whole numbers from 0."""
    if not isinstance(numbers, list):
        return False
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)


def pointer_hint(path: Path) -> str:
    """What to do about a file that git left a pointer in place of; empty for any other."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:
        return ""
    return "; it is a git-lfs pointer: git lfs pull fetches the file" if is_pointer else ""
