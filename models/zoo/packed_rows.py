"""The packed weights of a language model, kept in a file for its next start: rounding every weight and putting it in
its place takes longer than all else that a start does.

The file is a JSON header behind its length (8 bytes, little-endian), and the arrays, each on a 64-byte boundary. It is
as good as what it was made of: other weights, another datatype or another layout, and it is made anew.
"""

import json
import logging
import mmap
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from models import kernels

Array = NDArray[np.float32]
LEAST_BYTES = 32 * 1024 * 1024
"""A smaller model is packed in a moment."""

Packed = kernels.RowMatrix | kernels.CoarseMatrix

_BOUNDARY = 64

log = logging.getLogger(__name__)


class PackedRows:
    """Packs matrices, each by a name of its own, or takes them from the file at `path`, which need not be there."""

    def __init__(self, path: Path, weights_digest: str, datatype: str) -> None:
        self._path, self._datatype = path, datatype
        self._made_of = {"weights": weights_digest, "datatype": datatype, "layout": kernels.ROW_LAYOUT}
        self._kept = _read(path, self._made_of)
        self._packed: dict[str, Packed] = {}
        self._is_whole = self._kept is not None

    def pack(
        self,
        name: str,
        read: Callable[[], Array],
        by: Literal["inputs", "outputs"],
        bias: Array | None,
        datatype: str | None = None,
    ) -> kernels.RowMatrix:
        """As `kernels.pack_rows`, of the weight that is read where the file has it not, in the file's datatype unless
        told."""
        kind = datatype or self._datatype
        matrix = self._find(name, by, bias, kind)
        if matrix is None:
            self._is_whole = False
            matrix = kernels.pack_rows(read(), kind, by, bias=bias)
        self._packed[name] = matrix
        return matrix

    def pack_coarse(self, name: str, make: Callable[[], kernels.CoarseMatrix]) -> kernels.CoarseMatrix:
        """The coarse weights of that name, which are made where the file has them not."""
        matrix = self._find_coarse(name)
        if matrix is None:
            self._is_whole = False
            matrix = make()
        self._packed[name] = matrix
        return matrix

    def release(self) -> None:
        """Gives the memory of what was read back to the system."""
        if self._kept is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._kept.content.madvise(mmap.MADV_DONTNEED)

    def keep(self) -> None:
        """Writes the file, all of it or nothing, where it lacked something. Where it cannot be, the next start packs
        again."""
        packed, self._packed, self._kept = self._packed, {}, None
        if self._is_whole or sum(matrix.nbytes for matrix in packed.values()) < LEAST_BYTES:
            return
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    _write(file, self._made_of, packed)
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the packed weights are not kept, and the next start packs again: %s", error)

    def _find(
        self, name: str, by: Literal["inputs", "outputs"], bias: Array | None, datatype: str
    ) -> kernels.RowMatrix | None:
        if self._kept is None:
            return None
        with suppress(KeyError, TypeError, ValueError):  # whatever does not fit is packed again
            entry = self._kept.matrices[name]
            return kernels.repack_rows(
                self._kept.array(entry["words"], np.dtype("<i4")),
                entry["outputs"],
                entry["inputs"],
                datatype,
                by,
                norms=self._kept.array(entry["norms"], np.dtype("<f4")),
                scales=self._kept.array(entry["scales"], np.dtype("<f4")) if "scales" in entry else None,
                bias=bias,
            )
        return None

    def _find_coarse(self, name: str) -> kernels.CoarseMatrix | None:
        if self._kept is None:
            return None
        with suppress(KeyError, TypeError, ValueError):
            entry = self._kept.matrices[name]
            words = self._kept.array(entry["words"], np.dtype("<i4"))
            return kernels.repack_coarse(words, entry["outputs"], entry["inputs"])
        return None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A mapped file; places are pairs of an array's offset in it and its number of items."""

    content: mmap.mmap
    matrices: Mapping[str, Any]

    def array(self, place: tuple[int, int], dtype: "np.dtype[Any]") -> NDArray[Any]:
        offset, count = place
        return np.frombuffer(self.content, dtype, count, offset)


def _read(path: Path, made_of: Mapping[str, str]) -> _Kept | None:
    """None for a file that is not there, is torn, or was made of something else."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        matrices = header["matrices"]
        if header["made_of"] != made_of or header["bytes"] != len(content) or header["check"] != _check(matrices):
            return None
        return _Kept(content, matrices)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(slots=True)
class _Layout:
    """Where the arrays go that are written one after the other."""

    end: int = 0
    arrays: list[tuple[int, NDArray[Any]]] = field(default_factory=list)

    def place(self, array: NDArray[Any]) -> tuple[int, int]:
        start = -(-self.end // _BOUNDARY) * _BOUNDARY
        self.arrays.append((start, array))
        self.end = start + array.nbytes
        return start, array.size


def _write(file: BinaryIO, made_of: Mapping[str, str], packed: Mapping[str, Packed]) -> None:
    # The offsets are in the header, and its length is in them: one that is longer than it needs to be ends in spaces.
    start = 8 + 2 * len(_header(made_of, packed, 0)[0])
    header, layout = _header(made_of, packed, start)
    file.write((start - 8).to_bytes(8, "little") + header.ljust(start - 8))
    for offset, array in layout.arrays:
        file.write(bytes(offset - file.tell()))
        array.tofile(file)
    file.flush()
    os.fsync(file.fileno())


def _header(made_of: Mapping[str, str], packed: Mapping[str, Packed], start: int) -> tuple[bytes, _Layout]:
    layout, matrices = _Layout(start), {}
    for name, matrix in packed.items():
        entry = {"outputs": matrix.outputs, "inputs": matrix.inputs, "words": layout.place(matrix.words)}
        if isinstance(matrix, kernels.CoarseMatrix):
            matrices[name] = entry
            continue
        entry["norms"] = layout.place(matrix.norms)
        if matrix.scales is not None:
            entry["scales"] = layout.place(matrix.scales)
        matrices[name] = entry
    header = {"made_of": made_of, "bytes": layout.end, "check": _check(matrices), "matrices": matrices}
    return json.dumps(header).encode(), layout


def _check(matrices: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(matrices).encode())
