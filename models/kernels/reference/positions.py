"""Joining positions that are nearly alike."""

from typing import Any

import torch
from numpy.typing import NDArray

from models.kernels.reference.arrays import Floats, checked_instruction_set, float_tensor, per_channel


def merge_positions(
    x: Floats, sizes: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows of x [M, C] that a gate on their saliency leaves, and how many each stands for (token merging, Bolya et
    al. 2023).

    The saliency of an even row is 1 − its greatest cosine to an odd one. Even rows but the first whose saliency is not
    above the threshold join that odd row: the mean of both, weighted by their sizes [M].
    """
    checked_instruction_set(instruction_set)
    rows = float_tensor(x, "x", 2)
    counts = per_channel(sizes, "sizes", rows.shape[0], "rows", rows.dtype)
    if threshold != threshold:
        raise ValueError("threshold must be a number")
    if rows.shape[0] < 3:
        return rows.numpy(), counts.numpy()
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    likeness, nearest = (unit[2::2] @ unit[1::2].T).max(1)
    joined = 1 - likeness <= threshold
    sources, targets = 2 * torch.nonzero(joined).flatten() + 2, 2 * nearest[joined] + 1
    total = counts.index_add(0, targets, counts[sources])
    weighted = rows * counts[:, None]
    mean = weighted.index_add(0, targets, weighted[sources]) / total[:, None]
    mean = torch.where((total == counts)[:, None], rows, mean)
    kept = torch.ones(rows.shape[0], dtype=torch.bool)
    kept[sources] = False
    return mean[kept].numpy(), total[kept].numpy()
