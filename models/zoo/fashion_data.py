"""Fashion-MNIST (Xiao et al. 2017): finding and reading the IDX files, and the one split that everything here uses.

The 60,000 training images are cut once, in file order: the first 55,000 train, the last 5,000 are held out for
calibration and for decisions made during development. The 10,000 test images are only ever measured on.
"""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LABELS = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TRAINING_IMAGES = 55_000
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).parent / "weights" / "fashion_sample.npz"


class MissingData(FileNotFoundError):
    """The data set is not on this computer; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """`images` uint8 [n, 28, 28], `labels` int64 [n] (an index into `LABELS`)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def folder(path: Path | None = None) -> Path:
    """The folder that holds the four IDX files (plain or `.gz`): `path`, else `SLUICE_FASHION_MNIST`, else Debian's
    place.

    Raises `MissingData` when the files are not there.
    """
    given = path or os.environ.get("SLUICE_FASHION_MNIST")
    found = Path(given) if given else DEBIAN
    for images, labels in _FILES.values():
        for name in (images, labels):
            if not (found / name).exists() and not (found / f"{name}.gz").exists():
                raise MissingData(
                    f"{found} has no {name}[.gz]. Install Debian's package (apt-get install dataset-fashion-mnist), "
                    "or name the folder of the four IDX files with --data or SLUICE_FASHION_MNIST."
                )
    return found


def training(path: Path | None = None) -> LabelledImages:
    """The first 55,000 training images."""
    images, labels = _split("train", path)
    return LabelledImages(images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES])


def held_out(path: Path | None = None) -> LabelledImages:
    """The last 5,000 training images, never trained on: calibration, and every choice made while developing."""
    images, labels = _split("train", path)
    return LabelledImages(images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:])


def test(path: Path | None = None) -> LabelledImages:
    """The 10,000 test images: for reporting only."""
    return LabelledImages(*_split("test", path))


def sample() -> LabelledImages:
    """A few hundred test images that travel with the package, so that accuracy can be checked anywhere."""
    with np.load(SAMPLE) as archive:
        return LabelledImages(archive["images"], archive["labels"].astype(np.int64))


def _split(name: str, path: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found = folder(path)
    plain = [found / file for file in _FILES[name]]
    images, labels = (read_idx(path if path.exists() else path.with_name(f"{path.name}.gz")) for path in plain)
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One IDX file, plain or `.gz`: two zero bytes, type 8 (unsigned bytes), the rank, the sizes as big-endian 32 bits.

    Raises `ValueError` for anything else.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
