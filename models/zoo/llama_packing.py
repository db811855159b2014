"""How the matrices of a checkpoint become those of the kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.packed_rows import PackedRows

Array = NDArray[np.float32]


class Weights(Protocol):
    """The tensors of a checkpoint by the names that Hugging Face's have."""

    def __contains__(self, name: object) -> bool: ...
    def __getitem__(self, name: str) -> Array:
        """The tensor in float32. Raises `ValueError` where it is missing."""

    def rows(self, name: str, ids: Sequence[int]) -> Array:
        """Rows of a matrix, in float32, without reading the others."""

    def release(self) -> None:
        """Gives the memory of what was read back to the system."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Takes them from a checkpoint, or packed from `rows`, where they are kept then."""

    weights: Weights
    datatype: str
    rows: PackedRows | None

    def matrix(
        self,
        by: Literal["inputs", "outputs"],
        *names: str,
        datatype: str | None = None,
        key: str = "",
        change: Callable[[Array], Array] = lambda weight: weight,
    ) -> kernels.RowMatrix:
        """The linear layers of these names as one, their outputs side by side, in a datatype of its own if told. Where
        the weight is changed, the `key` says how."""
        bias = self._bias(names)
        return self.pack(f"{'+'.join(names)} by {by} {key}".rstrip(), self._reading(names, change), by, datatype, bias)

    def coarse(
        self, key: str, names: Sequence[str], pack: Callable[[Array], kernels.CoarseMatrix]
    ) -> kernels.CoarseMatrix:
        """The same, coarse; the `key` says how they are packed."""
        read = self._reading(names, lambda weight: weight)
        if self.rows is None:
            return pack(read())
        return self.rows.pack_coarse(f"{'+'.join(names)} coarse {key}".rstrip(), lambda: pack(read()))

    def _bias(self, names: Sequence[str]) -> Array | None:
        biases = [optional(self.weights, f"{name}.bias") for name in names]
        if all(part is None for part in biases):
            return None
        return np.concatenate(
            [
                np.zeros(len(self.weights[f"{name}.weight"]), np.float32) if part is None else part
                for name, part in zip(names, biases, strict=True)
            ]
        )

    def _reading(self, names: Sequence[str], change: Callable[[Array], Array]) -> Callable[[], Array]:
        def read() -> Array:
            matrices = [self.weights[f"{name}.weight"] for name in names]
            return change(matrices[0] if len(matrices) == 1 else np.concatenate(matrices))

        return read

    def pack(
        self,
        name: str,
        read: Callable[[], Array],
        by: Literal["inputs", "outputs"],
        datatype: str | None = None,
        bias: Array | None = None,
    ) -> kernels.RowMatrix:
        """What is read, which has this name where packed weights are kept."""
        if self.rows is None:
            return kernels.pack_rows(read(), datatype or self.datatype, by, bias=bias)
        return self.rows.pack(name, read, by, bias, datatype)

    def release(self) -> None:
        self.weights.release()
        if self.rows is not None:
            self.rows.release()

    def keep(self) -> None:
        if self.rows is not None:
            self.rows.keep()


def optional(weights: Weights, name: str) -> Array | None:
    """A tensor that not every checkpoint has."""
    return weights[name] if name in weights else None  # noqa: SIM401


def completed(basis: Array, head: Array) -> Array:
    """An orthogonal matrix [hidden, hidden] whose first columns span the basis [hidden, directions], and whose others
    are the principal directions of the head [vocabulary, hidden] in what is left."""
    first = np.linalg.qr(basis.astype(np.float64))[0]
    rest = np.eye(len(first)) - first @ first.T
    directions = np.linalg.eigh(rest @ (head.T @ head) @ rest)[1][:, ::-1][:, : len(first) - first.shape[1]]
    whole: Array = np.linalg.qr(np.concatenate([first, directions], 1))[0].astype(np.float32)
    return whole
