"""Joining positions that are nearly alike."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.reference.arrays import Channels, Floats, checked_instruction_set, float_tensor, per_channel


def match_positions(x: Floats, threshold: float, *, instruction_set: str | None = None) -> Channels:
    """For each row of x [M, C] the one that it joins, int32 [M]; itself where it stays.

    Pairs whose saliency, 1 − their cosine, is not above the threshold are gone through from the most alike on. A row
    that is in no pair yet joins the one before it, or joins the row of the pair that others have joined. The first row
    stays by itself.
    """
    checked_instruction_set(instruction_set)
    return _targets(float_tensor(x, "x", 2), threshold).numpy().astype(np.int32)


def merge_positions(
    x: Floats, sizes: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows of x [M, C] that a gate on their saliency leaves, and how many each stands for (token merging, Bolya et
    al. 2023). Rows that join another, by `match_positions`, become their mean, weighted by their sizes [M]."""
    checked_instruction_set(instruction_set)
    rows = float_tensor(x, "x", 2)
    counts = per_channel(sizes, "sizes", rows.shape[0], "rows", rows.dtype)
    targets = _targets(rows, threshold)
    total = torch.zeros_like(counts).index_add(0, targets, counts)
    mean = torch.zeros_like(rows).index_add(0, targets, rows * counts[:, None]) / total[:, None]
    mean = torch.where((total == counts)[:, None], rows, mean)
    kept = targets == torch.arange(len(rows))
    return mean[kept].numpy(), total[kept].numpy()


def _targets(rows: Tensor, threshold: float) -> Tensor:
    if threshold != threshold:
        raise ValueError("threshold must be a number")
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    likeness = (unit @ unit.T)[1:, 1:]
    before, behind = torch.triu_indices(len(likeness), len(likeness), 1)
    found = likeness[before, behind]
    order = torch.argsort(found, descending=True, stable=True)
    order = order[1 - found[order] <= threshold]
    targets = list(range(len(rows)))
    joined: set[int] = set()
    for i, j in zip((before[order] + 1).tolist(), (behind[order] + 1).tolist(), strict=True):
        if targets[i] != i or targets[j] != j or (i in joined and j in joined):
            continue
        stays = j if j in joined else i
        targets[i] = targets[j] = stays
        joined.add(stays)
    return torch.tensor(targets, dtype=torch.int64)
