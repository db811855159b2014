"""The gated image classifier as it is served: Fashion-MNIST, six gated 3×3 convolutions, one image at a time, on our
kernels.

A layer reads only the channels that the one before it computed, so its work falls with the product of both shares.
The gates are those of `models.gating.gate`; `models.gating.network` is the same arithmetic in torch, for training,
with the reasons for its form.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.gating.gate import GatedConvolution, fuse
from models.gating.profile import Profile
from models.gating.shape import NORM_EPSILON, PIXEL_DEVIATION, PIXEL_MEAN, NetworkShape
from models.model import GateContext, InvalidInput, TensorSpec
from models.zoo.fashion_data import LABELS
from models.zoo.fashion_shape import SHAPE
from models.zoo.fashion_weights import Array, Calibration, FashionWeights, Files, load_calibration, load_weights

LEVEL_STEPS = 256
"""Levels are rounded down to this grid: finer than any effect, and coarse enough to keep the tables of the levels in
use."""


@dataclass(frozen=True, slots=True)
class LevelTables:
    """All that a level changes: `thresholds` [layers], and the norms folded into `scales` and `shifts` of all layers'
    channels, one layer after another."""

    thresholds: Array
    scales: Array
    shifts: Array


def load(files: Files, name: str = "fashion", datatype: str = "fp32") -> "FashionClassifier":
    """A classifier whose convolutions are in the `datatype` "fp32" or "bf16".

    Raises `FileNotFoundError` for a missing file, `ValueError` for files that do not belong together.
    """
    weights, profile = load_weights(files.weights), Profile.load(files.profile)
    if profile.weights_digest != weights.digest:
        raise ValueError(f"{files.profile} was measured on other weights than {files.weights}: run sluice calibrate")
    calibration = load_calibration(files.calibration)
    if not fits(calibration, profile):
        raise ValueError(f"{files.profile} was not measured with {files.calibration}: run sluice calibrate")
    return FashionClassifier(name, weights, calibration, profile, datatype=datatype)


def fits(calibration: Calibration, profile: Profile, shape: NetworkShape = SHAPE) -> bool:
    """Whether these tables are of this network, and the ones that the profile was measured with."""
    outputs = [(len(calibration.kept_shares), layer.outputs) for layer in shape.layers]
    tables = (calibration.means, calibration.variances)
    if any([table.shape for table in layers] != outputs for layers in tables):
        return False
    names = [layer.name for layer in shape.layers]
    measured = np.array([[point.thresholds[name] for name in names] for point in profile.points])
    return measured.shape == calibration.thresholds.shape and np.allclose(measured, calibration.thresholds, atol=1e-5)


class FashionClassifier:
    """Implements `models.model.Model`. Input `image`, uint8 [n, 28, 28]; outputs `probabilities` [n, 10] and `label`
    [n]."""

    version = "1"
    platform = "sluice_gated"
    max_batch = 64
    inputs = (TensorSpec("image", "UINT8", (-1, 28, 28)),)
    outputs = (TensorSpec("probabilities", "FP32", (-1, 10), LABELS), TensorSpec("label", "INT64", (-1,)))

    def __init__(
        self,
        name: str,
        weights: FashionWeights,
        calibration: Calibration,
        profile: Profile,
        shape: NetworkShape = SHAPE,
        datatype: str = "fp32",
    ) -> None:
        self.name = name
        self.profile = profile
        self._shape = shape
        self._weights = weights
        self._calibration = calibration
        self._network = fuse(
            [
                GatedConvolution(
                    layer,
                    kernels.pack_convolution(stored.weight, padding=1, datatype=datatype),
                    np.ascontiguousarray(stored.predictor.T),
                    stored.offset,
                )
                for layer, stored in zip(shape.layers, weights.layers, strict=True)
            ]
        )
        self._head = kernels.pack_matrix(weights.head_weight)
        self._evidence, self._evidence_shift = evidence_layer(weights, shape)
        self._pixels = ((np.arange(256, dtype=np.float32) / 255 - PIXEL_MEAN) / PIXEL_DEVIATION).astype(np.float32)
        # Worked out once: a request takes a few hundred microseconds.
        self._dense_macs, self._gate_macs = shape.macs, shape.gate_macs
        self._pair_macs = [layer.macs(1, 1) for layer in shape.layers]
        self._tables: OrderedDict[int, LevelTables] = OrderedDict()
        self._tables_lock = Lock()

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        for name in inputs:
            if name != "image":
                raise InvalidInput(name, f"model {self.name} has no such input; it takes image")
        if "image" not in inputs:
            raise InvalidInput("image", f"model {self.name} needs this input")
        image = inputs["image"]
        if image.dtype != np.uint8:
            raise InvalidInput("image", f"datatype must be UINT8, got {image.dtype}")
        if image.ndim != 3 or image.shape[1:] != (28, 28):
            raise InvalidInput("image", f"shape must be [n, 28, 28], got {list(image.shape)}")
        if not 1 <= len(image) <= self.max_batch:
            raise InvalidInput("image", f"a request holds 1 to {self.max_batch} images, got {len(image)}")

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        return self._dense_macs * len(inputs["image"])

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        logits = self.logits(inputs["image"], context)
        # Ufuncs' own reductions: the methods of an array come by way of Python.
        exponentials = np.exp(logits - np.maximum.reduce(logits, 1, keepdims=True))
        probabilities = exponentials / np.add.reduce(exponentials, 1, keepdims=True)
        return {"probabilities": probabilities, "label": logits.argmax(1)}

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """The share of images with the same label."""
        return float((outputs["label"] == dense["label"]).mean())

    def logits(self, images: NDArray[np.uint8], context: GateContext) -> Array:
        """Images [n, 28, 28] through all layers: [n, classes]."""
        tables = self._tables_at(context.level)
        rows = [self._logits(pixels, tables, context) for pixels in self.pixels(images)]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def pixels(self, images: NDArray[np.uint8]) -> Array:
        """What the first layer sees of images, normalised: the same shape."""
        return self._pixels.take(images)

    def _logits(self, pixels: Array, tables: LevelTables, context: GateContext) -> Array:
        """One image through all layers: [1, classes]."""
        evidence = kernels.gated_matmul(
            pixels.reshape(1, -1), self._evidence, shift=self._evidence_shift, activation="relu"
        )[0]
        means, active = kernels.run_gated_network(
            self._network,
            pixels[:, :, None],
            evidence,
            thresholds=tables.thresholds,
            scales=tables.scales,
            shifts=tables.shifts,
            threads=context.threads,
        )
        inputs, done = 1, self._gate_macs
        for layer, pair_macs, selected in zip(self._shape.layers, self._pair_macs, active, strict=True):
            outputs = len(selected)
            done += pair_macs * inputs * outputs
            context.record(layer.name, layer.outputs, outputs, selected)
            inputs = outputs
        context.macs += self._dense_macs
        context.macs_skipped += max(0, self._dense_macs - done - inputs * self._shape.classes)
        return kernels.gated_matmul(means[None], self._head, inputs=active[-1], shift=self._weights.head_bias)

    def _tables_at(self, level: float) -> LevelTables:
        step = int(level * LEVEL_STEPS)  # down: a level is a promise of quality
        with self._tables_lock:
            tables = self._tables.get(step)
            if tables is None:
                tables = level_tables(self._weights, self._calibration, step / LEVEL_STEPS)
                self._tables[step] = tables
                if len(self._tables) > LEVEL_STEPS // 4:
                    self._tables.popitem(last=False)
            else:
                self._tables.move_to_end(step)
        return tables


def evidence_layer(weights: FashionWeights, shape: NetworkShape) -> tuple[kernels.PackedMatrix, Array]:
    """What every gate sees of the image: pooled over a coarse grid, then one small layer. Both are linear, so they are
    one matrix [evidence, pixels] on the normalised pixels, and a shift [evidence]; the ReLU comes after."""
    size = shape.layers[0].size
    cell = size // shape.grid
    weight = weights.evidence_weight.reshape(-1, shape.grid, 1, shape.grid, 1) * np.float32(PIXEL_DEVIATION / cell**2)
    spread = np.broadcast_to(weight, (len(weight), shape.grid, cell, shape.grid, cell)).reshape(len(weight), -1)
    shift = weights.evidence_bias + weights.evidence_weight.sum(1) * np.float32(PIXEL_MEAN)
    return kernels.pack_matrix(np.ascontiguousarray(spread)), shift


def level_tables(weights: FashionWeights, calibration: Calibration, level: float) -> LevelTables:
    """The thresholds and folded norms of a level."""
    low, share = _between(calibration, level)
    norms = folded_norms(weights, calibration, level)
    return LevelTables(
        _mix(calibration.thresholds, low, share),
        np.concatenate([scale for scale, _ in norms]),
        np.concatenate([shift for _, shift in norms]),
    )


def folded_norms(weights: FashionWeights, calibration: Calibration, level: float) -> list[tuple[Array, Array]]:
    """Every layer's norm as a scale and a shift, [outputs] each."""
    low, share = _between(calibration, level)
    off = 1 - float(_mix(calibration.kept_shares, low, share))
    norms = []
    for layer, mean, variance in zip(weights.layers, calibration.means, calibration.variances, strict=True):
        scale = layer.scale * (1 + layer.scale_slope * off) / np.sqrt(_mix(variance, low, share) + NORM_EPSILON)
        shift = layer.shift + layer.shift_slope * off - _mix(mean, low, share) * scale
        norms.append((scale.astype(np.float32), shift.astype(np.float32)))
    return norms


def _between(calibration: Calibration, level: float) -> tuple[int, np.float32]:
    """Where a level lies: the operating point below it, and how far it is to the next, 0 to 1."""
    position = level * (len(calibration.kept_shares) - 1)
    low = min(int(position), len(calibration.kept_shares) - 2)
    return low, np.float32(position - low)


def _mix(table: Array, low: int, share: np.float32) -> Array:
    mixed: Array = table[low] * (1 - share) + table[low + 1] * share
    return mixed
