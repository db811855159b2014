"""The dense image network in plain torch, as a user would serve it: trained without gates, batch norm folded into the
convolutions, channels-last, inference mode, one thread."""

from base64 import b64decode

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.gating.network import normalise
from models.gating.shape import NetworkShape
from models.zoo.catalog import MissingWeights
from models.zoo.fashion import folded_norms
from models.zoo.fashion_shape import SHAPE
from models.zoo.fashion_weights import PACKAGED, Calibration, FashionWeights, Files, load_calibration, load_weights


class DenseNetwork(nn.Module):
    """uint8 [n, 28, 28] → logits [n, classes]. The weights are those of a network without gates, or with gates that let
    everything through."""

    def __init__(self, weights: FashionWeights, calibration: Calibration, shape: NetworkShape = SHAPE) -> None:
        super().__init__()
        norms = folded_norms(weights, calibration, 0.0)
        self._pools = [layer.pool for layer in shape.layers]
        self._kernels = [
            torch.from_numpy(layer.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
            for layer, (scale, _) in zip(weights.layers, norms, strict=True)
        ]
        self._shifts = [torch.from_numpy(shift) for _, shift in norms]
        self._head = torch.from_numpy(weights.head_weight), torch.from_numpy(weights.head_bias)

    def forward(self, images: Tensor) -> Tensor:
        x = normalise(images).contiguous(memory_format=torch.channels_last)
        for kernel, shift, pool in zip(self._kernels, self._shifts, self._pools, strict=True):
            x = F.relu(F.conv2d(x, kernel, shift, padding=1))
            x = F.max_pool2d(x, 2) if pool else x
        return F.linear(x.mean((2, 3)), *self._head)


class Classifier:
    """The 784 bytes of an image in base64 go in, its label comes out. Raises `MissingWeights`."""

    def __init__(self, network: DenseNetwork | None = None) -> None:
        torch.set_num_threads(1)
        self._network = (network or load_plain()).eval()

    def __call__(self, image: str) -> int:
        pixels = np.frombuffer(b64decode(image), np.uint8).reshape(1, 28, 28).copy()
        with torch.inference_mode():
            return int(self._network(torch.from_numpy(pixels)).argmax())


def load_plain() -> DenseNetwork:
    """The packaged network that was trained without gates."""
    files = Files.named(PACKAGED, "fashion-plain")
    try:
        return DenseNetwork(load_weights(files.weights), load_calibration(files.calibration))
    except FileNotFoundError as error:
        raise MissingWeights(f"{error.filename} is missing; make it with: sluice train fashion") from None
