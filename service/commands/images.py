"""Images from files, as a model's input tensor: pictures, NumPy arrays and IDX files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.zoo.fashion_data import read_idx

Images = NDArray[np.uint8]


class UnreadableInput(ValueError):
    """A file that holds no image that the model can take; the message says why."""


def read_images(path: Path, height: int, width: int, first: int = 0, count: int | None = None) -> Images:
    """uint8 [n, height, width] from a picture (PNG, JPEG, …), a `.npy` array of one or more images, or an IDX file.

    Pictures are made grey and scaled, arrays have to have the size already. ``first`` and ``count`` choose among
    several. Raises UnreadableInput.
    """
    try:
        if path.suffix == ".npy":
            images = np.load(path, allow_pickle=False)
        elif path.name.removesuffix(".gz").endswith("-ubyte"):
            images = read_idx(path)
        else:
            images = _read_picture(path, height, width)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableInput(f"{path} cannot be read: {error}") from None
    images = images[None] if images.ndim == 2 else images
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (height, width):
        raise UnreadableInput(
            f"{path} holds {images.dtype} {list(images.shape)}; the model takes uint8 [n, {height}, {width}]"
        )
    chosen: Images = images[first : None if count is None else first + count]
    if len(chosen) == 0:
        raise UnreadableInput(f"{path} holds {len(images)} images; there are none from number {first} on")
    return chosen


def _read_picture(path: Path, height: int, width: int) -> Images:
    try:
        from PIL import Image
    except ImportError:
        raise UnreadableInput("reading pictures needs Pillow: pip install 'sluice-serve[images]'") from None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((width, height)), dtype=np.uint8)
