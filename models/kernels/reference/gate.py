"""The gate, and the reductions around it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.kernels.reference.arrays import (
    Channels,
    Floats,
    channel_ids,
    checked_instruction_set,
    deliver,
    float_tensor,
    per_channel,
)


def max_pool2x2(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> NDArray[Any]:
    """The maximum of each 2x2 square of x [H, W, n], [H // 2, W // 2, n]; an odd last row or column is left out."""
    checked_instruction_set(instruction_set)
    image = float_tensor(x, "x", 3)
    if min(image.shape[:2]) < 2:
        raise ValueError("x must be at least 2x2")
    height, width, channels = image.shape
    squares = image[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, channels)
    return deliver(squares.amax(dim=(1, 3)), out)


def channel_means(x: Floats, *, out: Floats | None = None, instruction_set: str | None = None) -> NDArray[Any]:
    """The mean over the positions of x [H, W, n], [n]."""
    checked_instruction_set(instruction_set)
    image = float_tensor(x, "x", 3)
    if 0 in image.shape[:2]:
        raise ValueError("x must have at least one position")
    return deliver(image.mean(dim=(0, 1)), out)


def squeeze_channels(
    x: Floats,
    channels: int,
    evidence: Floats,
    *,
    inputs: Channels | None = None,
    instruction_set: str | None = None,
) -> NDArray[Any]:
    """The features of a gate, [channels + evidence], of x [H, W, n].

    First the means of its channels over the positions, divided by their own mean over all `channels`, zero for the
    inactive ones; of a single channel, an image, the mean of its magnitude. Then the evidence.
    """
    checked_instruction_set(instruction_set)
    image = float_tensor(x, "x", 3)
    if 0 in image.shape[:2]:
        raise ValueError("x must have at least one position")
    if channels < 1:
        raise ValueError("channels must be at least 1")
    read = channel_ids(inputs, "inputs", channels)
    if image.shape[2] != read.numel():
        raise ValueError(f"x must have {read.numel()} channels, one for each active input, not {image.shape[2]}")
    seen = float_tensor(evidence, "evidence", 1, image.dtype)
    features = torch.zeros(channels, dtype=image.dtype)
    if channels == 1:
        if not read.numel():
            raise ValueError("x must have its only channel")
        features[0] = image.abs().mean()
    else:
        means = image.mean(dim=(0, 1))
        features[read] = means * (channels / max(float(means.sum()), 1e-6 * channels))
    return torch.cat((features, seen)).numpy()


def gate_channels(
    features: Floats, projection: Floats, bias: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The active channels and their multipliers (feature boosting and suppression, Gao et al. 2019).

    a = features · projection + bias with a projection [features, channels], r = relu(a), m = r / mean(r). Active are
    the channels with a > threshold and a > 0; if none is, the one with the largest a is kept, and its multiplier is 1
    when all r are 0.
    """
    checked_instruction_set(instruction_set)
    matrix = float_tensor(projection, "projection", 2)
    vector = float_tensor(features, "features", 1, matrix.dtype)
    if matrix.shape[1] == 0:
        raise ValueError("projection must have at least one channel")
    if matrix.shape[0] != vector.shape[0]:
        raise ValueError(f"projection must have {vector.shape[0]} rows, one for each feature, not {matrix.shape[0]}")
    offsets = per_channel(bias, "bias", matrix.shape[1], "channels", matrix.dtype)
    if threshold != threshold:
        raise ValueError("threshold must be a number")
    raw = vector @ matrix + offsets
    rectified = raw.relu()
    mean = rectified.mean()
    active = torch.nonzero((raw > threshold) & (raw > 0)).flatten()
    if not active.numel():
        active = raw.argmax().reshape(1)
    multipliers = rectified[active] / mean if mean > 0 else torch.ones(len(active), dtype=raw.dtype)
    return active.to(torch.int32).numpy(), multipliers.numpy()


def select_channels(
    x: Floats, mean: Floats | None, norms: Floats, threshold: float, *, instruction_set: str | None = None
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """The input channels of x [M, K] with √(mean over the rows of (x_k − mean_k)²) · norms_k > threshold, ascending,
    and x − mean of those alone [M, n]."""
    checked_instruction_set(instruction_set)
    rows = float_tensor(x, "x", 2)
    if rows.shape[0] == 0:
        raise ValueError("x must have at least one row")
    deviation = rows
    if mean is not None:
        deviation = rows - per_channel(mean, "mean", rows.shape[1], "channels", rows.dtype)
    scale = per_channel(norms, "norms", rows.shape[1], "channels", rows.dtype)
    if threshold != threshold:
        raise ValueError("threshold must be a number")
    saliencies = deviation.square().mean(0).sqrt() * scale
    active = torch.nonzero(~(saliencies <= threshold)).flatten()
    return active.to(torch.int32).numpy(), deviation[:, active].contiguous().numpy()
