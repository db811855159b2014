"""How the image network is trained, calibrated and written down. Needs torch; serving does not.

Three variants come out of one recipe: `plain`, the dense network without gates, which is also the teacher; `gated`,
the one that is served; and `static`, trained exactly like the gated one but with the same channels for every image,
to show what choosing is worth.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from models.gating import calibration
from models.gating.measurement import CONFIDENCE, measure, profile
from models.gating.network import GatedNetwork, PlainNetwork
from models.gating.ordering import order_channels
from models.gating.profile import OperatingPoint, Profile
from models.gating.training import Group, Recipe, Report, start_from, train_gated, train_plain
from models.zoo import fashion_data
from models.zoo.fashion import FashionClassifier
from models.zoo.fashion_shape import LEAST_KEPT, SHAPE
from models.zoo.fashion_weights import Calibration, FashionWeights, Files, load_weights, save_calibration

EXPONENTS = (0.8, 1.0, 1.0, 1.0, 1.0, 1.3)
POINTS = 13
STATISTICS_IMAGES = 3000
PLAIN = Recipe(epochs=8, rate=0.1)
GATED = Recipe(
    epochs=14,
    rate=0.05,
    groups=(Group(32, 1, 1), Group(48, 0.6, 0.95), Group(48, LEAST_KEPT, 0.6)),
    exponents=EXPONENTS,
    softness=0.15,
    spread=0.6,
    spread_weight=4.0,
    predictor_rate=0.5,
)


def train(variant: str, data: Path | None, work: Path, report: Report, *, seed: int = 0) -> Path:
    """Trains "plain", "gated" or "static" and returns the weights file that it wrote into `work`.

    Checkpoints go to `work` after every epoch and training resumes from them. The other two need the plain network's
    checkpoint there and train it first where it is missing. On two cores an epoch takes 2 to 4 minutes.
    """
    images = fashion_data.training(data)
    torch.manual_seed(seed)
    plain = PlainNetwork(SHAPE)
    train_plain(plain, images.images, images.labels, replace(PLAIN, seed=seed), work / f"plain-{seed}.pt", report)
    weights = work / f"fashion-{variant}-{seed}.safetensors"
    if variant == "plain":
        write(_plain_tensors(plain), weights)
        return weights
    torch.manual_seed(seed + 1)
    network = GatedNetwork(SHAPE, static=variant == "static")
    recipe = replace(GATED, seed=seed)
    start_from(plain, network, images.images[:1000], recipe)
    train_gated(network, plain, images.images, images.labels, recipe, work / f"{variant}-{seed}.pt", report)
    order_channels(network, images.images[:1000], calibration.kept_shares(5, LEAST_KEPT), EXPONENTS)
    write(gated_tensors(network), weights)
    return weights


def calibrate(
    files: Files,
    name: str,
    data: Path | None,
    report: Callable[[float], None],
    *,
    points: int = POINTS,
    least_kept: float = LEAST_KEPT,
) -> Profile:
    """Writes the calibration and the profile that belong to `files.weights`; `report` is called with the share done,
    0 to 1.

    Thresholds and statistics come from training images, expectations from the held-out ones, through the serving code.
    """
    weights = load_weights(files.weights)
    network = to_network(weights)
    images = fashion_data.training(data).images[:STATISTICS_IMAGES]
    found = []
    for i, kept in enumerate(calibration.kept_shares(points, least_kept)):
        found.append(calibration.calibrate(network, images, kept, EXPONENTS))
        report((i + 1) / (2 * points))
    tables = Calibration(
        kept_shares=np.array([p.kept for p in found], np.float32),
        thresholds=np.array([p.thresholds for p in found], np.float32),
        means=tuple(_stack([p.statistics[i].mean for p in found]) for i in range(len(SHAPE.layers))),
        variances=tuple(_stack([p.statistics[i].variance for p in found]) for i in range(len(SHAPE.layers))),
    )
    held_out = fashion_data.held_out(data)
    model = FashionClassifier(name, weights, tables, unmeasured(name, weights.digest))
    measurements = []
    for i, level in enumerate(tables.levels):
        measurements.append(measure(model, held_out.images, float(level)))
        report(0.5 + (i + 1) / (2 * points))

    def thresholds_at(level: float) -> dict[str, float]:
        row = tables.thresholds[round(level * (points - 1))]
        return {layer.name: float(t) for layer, t in zip(SHAPE.layers, row, strict=True)}

    measured = profile(name, weights.digest, measurements, held_out.labels, thresholds_at)
    save_calibration(tables, files.calibration)
    measured.save(files.profile)
    return measured


def unmeasured(name: str, digest: str) -> Profile:
    """The profile of a model that nobody measured yet: dense and nothing else."""
    dense = OperatingPoint(0.0, {layer.name: 0.0 for layer in SHAPE.layers}, 0.0, 1.0, None, None, 1.0, 1.0)
    return Profile(name, 0, CONFIDENCE, digest, (dense,))


def to_network(weights: FashionWeights) -> GatedNetwork:
    """The trainable network with these parameters."""
    network = GatedNetwork(SHAPE)
    with torch.no_grad():
        for layer, stored in zip(network.layers, weights.layers, strict=True):
            layer.convolution.weight.copy_(torch.from_numpy(stored.weight))
            for key in ("predictor", "offset", "scale", "shift", "scale_slope", "shift_slope"):
                getattr(layer, key).copy_(torch.from_numpy(getattr(stored, key)))
        network.evidence.weight.copy_(torch.from_numpy(weights.evidence_weight))
        network.evidence.bias.copy_(torch.from_numpy(weights.evidence_bias))
        network.head.weight.copy_(torch.from_numpy(weights.head_weight))
        network.head.bias.copy_(torch.from_numpy(weights.head_bias))
    return network


def gated_tensors(network: GatedNetwork) -> dict[str, Tensor]:
    """The network's parameters under the names of the weights file, matrices as bf16."""
    tensors = {
        "evidence.weight": network.evidence.weight,
        "evidence.bias": network.evidence.bias,
        "head.weight": network.head.weight,
        "head.bias": network.head.bias,
    }
    for i, layer in enumerate(network.layers, 1):
        tensors |= {
            f"conv{i}.weight": layer.convolution.weight.bfloat16(),
            f"conv{i}.predictor": layer.predictor.bfloat16(),
        }
        tensors |= {
            f"conv{i}.{key}": getattr(layer, key) for key in ("offset", "scale", "shift", "scale_slope", "shift_slope")
        }
    return tensors


def _plain_tensors(network: PlainNetwork) -> dict[str, Tensor]:
    """The plain network in the gated one's form: every saliency is 1."""
    gated = GatedNetwork(SHAPE, static=True)
    with torch.no_grad():
        for layer, convolution, norm in zip(gated.layers, network.convolutions, network.norms, strict=True):
            layer.convolution.weight.copy_(convolution.weight)
            layer.scale.copy_(norm.weight)
            layer.shift.copy_(norm.bias)
        gated.head.load_state_dict(network.head.state_dict())
    return gated_tensors(gated)


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a weights file."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)


def _stack(rows: list[Tensor]) -> NDArray[np.float32]:
    stacked: NDArray[np.float32] = torch.stack(rows).numpy()
    return stacked
