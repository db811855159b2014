"""Inputs to try a model with: a few real images, one or two of each class."""

from base64 import b64encode
from typing import Any

import numpy as np

from models.model import Model
from models.zoo import fashion_data

EACH = 2


def sample_images(model: Model) -> list[dict[str, Any]]:
    """`{label, pixels}` of some images that this model takes, `pixels` their bytes in base64, row by row; empty for a
    model that takes something else."""
    if [(spec.name, spec.shape) for spec in model.inputs] != [("image", (-1, 28, 28))]:
        return []
    images = fashion_data.sample()
    chosen = [i for label in range(len(fashion_data.LABELS)) for i in np.flatnonzero(images.labels == label)[:EACH]]
    return [
        {
            "label": fashion_data.LABELS[int(images.labels[i])],
            "pixels": b64encode(images.images[i].tobytes()).decode(),
        }
        for i in chosen
    ]
