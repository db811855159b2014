"""The trainable form of a convolutional network whose every layer is gated (FBS: Gao et al., "Dynamic Channel
Pruning", ICLR 2019).

This is the network as training and calibration see it: torch, batches, skipped channels masked. Serving runs the same
arithmetic in `models.zoo.fashion`, where a skipped channel is not computed at all; a test holds the two together.

One layer, for one image x and the share k of channels that it is meant to keep (1 = all):

    squeeze    z = channel means of x divided by their own mean, followed by the image's evidence h (below)
    saliency   a = P z + c,   r = relu(a),   m = r / mean(r)
    select     channel j is active when a_j > τ
    compute    y = m · pool(relu(norm(conv(x)))) on the active channels, zero on the others

The norm's scale and shift move with the share, γ(1 + γ₁(1−k)) and β + β₁(1−k), because the statistics of a layer move
with the number of its active inputs; both fold into one multiply-add per channel and operating point.

What is added to FBS so that the work depends on the request: every gate also sees the evidence h = relu(V e + v), where
e is the image pooled over a coarse grid. Channel means say which features are present but not where, and the first
layers have hardly any; with the evidence already the first gate can tell an easy image from a hard one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.gating.shape import NORM_EPSILON, PIXEL_DEVIATION, PIXEL_MEAN, LayerShape, NetworkShape


@dataclass(frozen=True, slots=True)
class Statistics:
    """Calibrated mean and variance of one layer's convolution output, each [outputs]."""

    mean: Tensor
    variance: Tensor


@dataclass(slots=True)
class LayerTrace:
    """What one gated layer did in a forward pass: `saliency` (before its ReLU) and `active` (0 or 1), both [batch,
    outputs], the threshold, and the statistics that its norm used; None while training."""

    saliency: Tensor
    threshold: float
    active: Tensor
    statistics: Statistics | None


def normalise(images: Tensor) -> Tensor:
    """uint8 [n, 28, 28] → float [n, 1, 28, 28] with mean 0 and deviation 1 over the data set."""
    return ((images.float() / 255 - PIXEL_MEAN) / PIXEL_DEVIATION).unsqueeze(1)


def grid_means(images: Tensor, grid: int) -> Tensor:
    """uint8 [n, 28, 28] → [n, grid²]: the image pooled over a coarse grid, 0 to 1."""
    return F.adaptive_avg_pool2d((images.float() / 255).unsqueeze(1), grid).flatten(1)


M = TypeVar("M", bound=nn.Module)


class PlainNetwork(nn.Module):
    """The same layers without gates: the dense network that a user would train. It starts the gated one and stays its
    teacher."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.convolutions = _modules([nn.Conv2d(s.inputs, s.outputs, 3, padding=1, bias=False) for s in shape.layers])
        self.norms = _modules([nn.BatchNorm2d(s.outputs, eps=NORM_EPSILON) for s in shape.layers])
        self.head = nn.Linear(shape.layers[-1].outputs, shape.classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def activations(self, images: Tensor) -> list[Tensor]:
        """Every layer's output for uint8 images [n, 28, 28]."""
        x, outputs = normalise(images).contiguous(memory_format=torch.channels_last), []
        for shape, convolution, norm in zip(self.shape.layers, self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
            x = F.max_pool2d(x, 2) if shape.pool else x
            outputs.append(x)
        return outputs

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes]."""
        logits: Tensor = self.head(self.activations(images)[-1].mean((2, 3)))
        return logits


class GatedLayer(nn.Module):
    """One gated convolution; see the module. With `static` the predictor stays zero."""

    def __init__(self, shape: LayerShape, evidence: int, *, static: bool) -> None:
        super().__init__()
        self.shape = shape
        self.convolution = nn.Conv2d(shape.inputs, shape.outputs, 3, padding=1, bias=False)
        self.predictor = nn.Parameter(torch.zeros(shape.outputs, shape.inputs + evidence), requires_grad=not static)
        self.offset = nn.Parameter(torch.ones(shape.outputs))
        self.scale = nn.Parameter(torch.ones(shape.outputs))
        self.shift = nn.Parameter(torch.zeros(shape.outputs))
        self.scale_slope = nn.Parameter(torch.zeros(shape.outputs))
        self.shift_slope = nn.Parameter(torch.zeros(shape.outputs))

    def squeeze(self, x: Tensor, evidence: Tensor) -> Tensor:
        """[n, inputs, h, w] and [n, e] → features [n, inputs + e]."""
        if self.shape.inputs == 1:  # the image itself: signed, and divided by its own mean it would always be 1
            return torch.cat((x.abs().mean((2, 3)), evidence), 1)
        means = x.mean((2, 3), dtype=torch.float32)
        return torch.cat((means / means.mean(1, keepdim=True).clamp_min(1e-6), evidence), 1)

    def affine(self, kept: float) -> tuple[Tensor, Tensor]:
        """The norm's scale and shift at this share kept, each [outputs]."""
        return self.scale * (1 + self.scale_slope * (1 - kept)), self.shift + self.shift_slope * (1 - kept)

    def forward(
        self,
        x: Tensor,
        evidence: Tensor,
        kept: float,
        share: float | None,
        threshold: float,
        statistics: Statistics | None,
        softness: float,
    ) -> tuple[Tensor, LayerTrace]:
        """The layer's output [n, outputs, h', w'] and what its gate did.

        The threshold is the (1 − share) quantile of the saliencies over the batch and the channels where `share` is
        given, so that images compete for the batch's budget; otherwise `threshold`. With `statistics` the norm is
        calibrated, without them it uses the batch's own, which are in the trace of a network in evaluation mode.
        `softness` > 0 lets the choice itself be learnt: the step's gradient is that of a sigmoid of this width
        (straight-through).
        """
        with torch.autocast("cpu", enabled=False):  # bf16 saliencies would tie at the threshold
            # A gate reads the features and does not shape them: a gradient through its input costs dense accuracy.
            a = F.linear(self.squeeze(x.detach(), evidence), self.predictor, self.offset)
            if share is not None:
                threshold = float(torch.quantile(a.detach(), 1 - share)) if share < 1 else 0.0
            threshold = max(threshold, 0.0)
            active = (a > threshold).float()
            if softness:
                soft = torch.sigmoid((a - threshold) / softness)
                active = active + soft - soft.detach()
            r = F.relu(a)
            multiplier = active * r / r.mean(1, keepdim=True).clamp_min(1e-6)
        z = self.convolution(x)
        scale, shift = self.affine(kept)
        if statistics is None and not self.training:
            measured = z.detach().float()
            statistics = Statistics(measured.mean((0, 2, 3)), measured.var((0, 2, 3), correction=0))
        if statistics is None:
            y = F.batch_norm(z, None, None, scale, shift, training=True, eps=NORM_EPSILON)
        else:
            y = F.batch_norm(z, statistics.mean, statistics.variance, scale, shift, training=False, eps=NORM_EPSILON)
        y = (
            F.max_pool2d(y, 2) if self.shape.pool else y
        )  # before the ReLU, with which it commutes: a quarter of the elements
        y = F.relu(y, inplace=True) * multiplier[:, :, None, None].to(y.dtype)
        return y, LayerTrace(a, threshold, active, statistics)


class GatedNetwork(nn.Module):
    """The gated network. With `static` the predictors stay zero, so that the channels for a share are the same for
    every image: the baseline that shows what choosing per image is worth."""

    def __init__(self, shape: NetworkShape, *, static: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.static = static
        self.evidence = nn.Linear(shape.grid**2, shape.evidence)
        self.layers = _modules([GatedLayer(s, shape.evidence, static=static) for s in shape.layers])
        self.head = nn.Linear(shape.layers[-1].outputs, shape.classes)
        self.evidence.requires_grad_(not static)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        images: Tensor,
        kept: float,
        *,
        shares: Sequence[float] | None = None,
        thresholds: Sequence[float] | None = None,
        statistics: Sequence[Statistics] | None = None,
        softness: float = 0.0,
    ) -> tuple[Tensor, list[LayerTrace]]:
        """Logits [n, classes] of uint8 images [n, 28, 28] and each layer's trace; `shares` or `thresholds` per
        layer."""
        x = normalise(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            h = F.relu(self.evidence(grid_means(images, self.shape.grid)))
        traces = []
        for i, layer in enumerate(self.layers):
            x, trace = layer(
                x,
                h,
                kept,
                None if shares is None else shares[i],
                0.0 if thresholds is None else thresholds[i],
                None if statistics is None else statistics[i],
                softness,
            )
            traces.append(trace)
        return self.head(x.mean((2, 3))), traces


def _modules(modules: list[M]) -> Sequence[M]:
    """A ModuleList that keeps its elements' type."""
    return cast(Sequence[M], nn.ModuleList(modules))
