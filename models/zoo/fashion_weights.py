"""The image network's files: trained parameters (safetensors, matrices as bf16) and the calibrated tables that go
with them.

`NAME.safetensors` holds what training found. `NAME.calibration.safetensors` and `NAME.profile.json` hold what
calibration measured on it: per operating point the share kept, the thresholds and the statistics of every norm, and
what to expect of each. Serving needs all three.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize
from safetensors.numpy import save_file

Array = NDArray[np.float32]
PACKAGED = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class GatedLayerWeights:
    """One layer: `weight` [outputs, inputs, 3, 3], `predictor` [outputs, inputs + evidence], the rest [outputs]."""

    weight: Array
    predictor: Array
    offset: Array
    scale: Array
    shift: Array
    scale_slope: Array
    shift_slope: Array


@dataclass(frozen=True, slots=True)
class FashionWeights:
    """The network's trained parameters; `digest` is the SHA-256 of the file, unzipped."""

    layers: tuple[GatedLayerWeights, ...]
    evidence_weight: Array
    evidence_bias: Array
    head_weight: Array
    head_bias: Array
    digest: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """Per operating point, in order of level: `kept_shares` [points], `thresholds` [points, layers], and for each layer
    the mean and variance of its convolution's output, [points, outputs]."""

    kept_shares: Array
    thresholds: Array
    means: tuple[Array, ...]
    variances: tuple[Array, ...]

    @property
    def levels(self) -> Array:
        """The operating points' levels: evenly spaced from 0 to 1."""
        return np.linspace(0, 1, len(self.kept_shares), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Files:
    """Where one variant of the network lies. Weights may be gzipped, as the packaged ones are."""

    weights: Path
    calibration: Path
    profile: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> "Files":
        packed = folder / f"{name}.safetensors.gz"
        weights = packed if packed.exists() else folder / f"{name}.safetensors"
        return cls(weights, folder / f"{name}.calibration.safetensors", folder / f"{name}.profile.json")


def load_weights(path: Path) -> FashionWeights:
    """Reads trained parameters. Raises `FileNotFoundError`, or `ValueError` when the file holds something else."""
    raw = _unzipped(path)
    arrays = _arrays(raw)
    names = sorted({name.split(".")[0] for name in arrays if name.startswith("conv")})
    try:
        return FashionWeights(
            layers=tuple(
                GatedLayerWeights(**{key: arrays[f"{n}.{key}"] for key in GatedLayerWeights.__dataclass_fields__})
                for n in names
            ),
            evidence_weight=arrays["evidence.weight"],
            evidence_bias=arrays["evidence.bias"],
            head_weight=arrays["head.weight"],
            head_bias=arrays["head.bias"],
            digest=_digest(raw),
        )
    except KeyError as missing:
        raise ValueError(f"{path} has no tensor {missing}") from None


def weights_digest(path: Path) -> str:
    """`FashionWeights.digest` of a file, of which nothing else is read. Raises `FileNotFoundError`."""
    return _digest(_unzipped(path))


def load_calibration(path: Path) -> Calibration:
    """Reads what `save_calibration` wrote. Raises `FileNotFoundError`, or `ValueError` when something is missing."""
    arrays = _arrays(path.read_bytes())
    try:
        layers = range(arrays["thresholds"].shape[1])
        return Calibration(
            kept_shares=arrays["kept_shares"],
            thresholds=arrays["thresholds"],
            means=tuple(arrays[f"mean{i}"] for i in layers),
            variances=tuple(arrays[f"variance{i}"] for i in layers),
        )
    except KeyError as missing:
        raise ValueError(f"{path} has no tensor {missing}") from None


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Writes the tables as safetensors, all of them or nothing."""
    arrays = {"kept_shares": calibration.kept_shares, "thresholds": calibration.thresholds}
    for i, (mean, variance) in enumerate(zip(calibration.means, calibration.variances, strict=True)):
        arrays |= {f"mean{i}": mean, f"variance{i}": variance}
    partial = path.with_suffix(".partial")
    save_file(arrays, partial)
    partial.replace(path)


def _arrays(raw: bytes) -> Mapping[str, Array]:
    """All tensors of a safetensors file as float32. NumPy has no bf16: its bits are the upper half of a float32's."""
    arrays = {}
    for name, tensor in deserialize(raw):  # type: ignore[no-untyped-call]
        if tensor["dtype"] == "BF16":
            bits = np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16
            arrays[name] = bits.view(np.float32).reshape(tensor["shape"])
        elif tensor["dtype"] == "F32":
            arrays[name] = np.frombuffer(tensor["data"], "<f4").reshape(tensor["shape"]).astype(np.float32)
        else:
            raise ValueError(f"tensor {name} has the unexpected type {tensor['dtype']}")
    return arrays


def _unzipped(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
