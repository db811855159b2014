"""What the functions of the reference share: checks of their arguments, with the compiled core's errors, and the way
their results are delivered."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.datatypes import checked_datatype

Floats: TypeAlias = NDArray[Any] | Tensor
Channels: TypeAlias = NDArray[np.int32] | Tensor


def release_memory() -> None:
    """Nothing: what torch frees is torch's."""


def instruction_sets(datatype: str = "fp32") -> tuple[str, ...]:
    """The reference has one for each datatype: torch's own."""
    checked_datatype(datatype)
    return ("torch",)


def deliver(result: Tensor, out: Floats | None) -> NDArray[Any]:
    """The result as an array, or in `out`."""
    array = result.contiguous().numpy()
    if out is None:
        return array
    if tuple(out.shape) != array.shape:
        raise ValueError(f"out must have the shape {list(array.shape)}, not {list(out.shape)}")
    target = out.numpy() if isinstance(out, Tensor) else out
    if target.dtype != array.dtype:
        raise TypeError(f"out must be {array.dtype}, not {target.dtype}")
    if not target.flags.writeable:
        raise ValueError("out must be writable")
    target[...] = array
    return target


def tensor_of(value: Any) -> Tensor:
    """A tensor as it is, anything else as a new one."""
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


def float_tensor(value: Any, name: str, rank: int, dtype: torch.dtype | None = None) -> Tensor:
    """An array of that rank, of the type if one is given, else float32 or float64."""
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a float32 array, not {type(value).__name__}")
    tensor = tensor_of(value)
    if tensor.dtype not in ((torch.float32, torch.float64) if dtype is None else (dtype,)):
        raise TypeError(f"{name} must be float32, not {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, not {tensor.ndim}")
    return tensor


def shaped_tensor(value: Any, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A float tensor of that very shape."""
    tensor = float_tensor(value, name, len(shape), dtype)
    if list(tensor.shape) != list(shape):
        raise ValueError(f"{name} must have the shape {list(shape)}, not {list(tensor.shape)}")
    return tensor


def per_channel(value: Any, name: str, length: int, what: str, dtype: torch.dtype) -> Tensor:
    """One value for each of `length` channels."""
    tensor = float_tensor(value, name, 1, dtype)
    if tensor.shape[0] != length:
        raise ValueError(f"{name} must have one value for each of the {length} {what}, not {tensor.shape[0]}")
    return tensor


def channel_ids(value: Any, name: str, limit: int) -> Tensor:
    """The ids of a list of channels, strictly ascending and below `limit`; all of them for None."""
    if value is None:
        return torch.arange(limit)
    ids = int32_tensor(value, name)
    if ids.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, not {ids.ndim}")
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < limit):
        raise ValueError(f"{name} must hold channels from 0 to {limit - 1}")
    if bool((ids.diff() <= 0).any()):
        raise ValueError(f"{name} must be strictly ascending")
    return ids.long()


def head_ids(value: Any, name: str, heads: int, key_heads: int) -> Tensor:
    """For each of the heads the one that it reads, of `key_heads`; in even shares for None."""
    if value is None:
        if heads and (key_heads == 0 or heads % key_heads):
            raise ValueError(
                f"q must have a multiple of the {key_heads} heads of k, not {heads}, where {name} does not say which "
                "they read"
            )
        return torch.arange(heads) * key_heads // max(heads, 1)
    ids = int32_tensor(value, name)
    if list(ids.shape) != [heads]:
        raise ValueError(f"{name} must have the shape [{heads}], not {list(ids.shape)}")
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < key_heads):
        raise ValueError(f"{name} must hold heads from 0 to {key_heads - 1}")
    return ids.long()


def int32_tensor(value: Any, name: str) -> Tensor:
    """An int32 array."""
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} must be an int32 array, not {type(value).__name__}")
    ids = tensor_of(value)
    if ids.dtype != torch.int32:
        raise TypeError(f"{name} must be int32, not {str(ids.dtype).removeprefix('torch.')}")
    return ids


def checked_instruction_set(name: str | None) -> str:
    """The only one, which may be asked for by name."""
    if name not in (None, *instruction_sets()):
        raise ValueError(f"instruction_set must be one that this processor has (torch), not '{name}'")
    return "torch"
