"""Training with gates: a plain network first, then the gated one, taught by it, in every step with a random share of
its channels kept.

The recipe follows universally slimmable networks (Yu & Huang 2019) where a step trains several widths at once, each
group of images with its own batch statistics, the full width on labels and the others on the teacher; and FBS for the
gates. Two things make the work depend on the request, and neither is in FBS:

* the threshold in training is a quantile over the group and not over each image, and the choice gets a
  straight-through gradient: images compete for the group's budget, and the gradient of the loss says which of them
  needs a channel more;
* a target for each image's share of channels, higher for images on which the teacher is less sure of itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.gating.network import GatedNetwork, LayerTrace, PlainNetwork


@dataclass(frozen=True, slots=True)
class Group:
    """Part of a batch: how many images, and the range from which the share that they keep is drawn."""

    images: int
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: `rate` is the peak of a one-cycle schedule over `epochs`. Plain training ignores the gates'."""

    epochs: int
    rate: float
    groups: tuple[Group, ...] = ()
    exponents: tuple[float, ...] = ()
    """Per layer: the share kept where k is asked for is k to this power; layers differ in how much they bear."""
    jitter: float = 0.08
    predictor_rate: float = 1.0
    """The predictors' rate relative to `rate`."""
    softness: float = 0.0
    spread: float = 0.0
    """How far an image's target share lies from the one asked for: ± spread · min(k, 1 − k) from the surest to the
    least sure."""
    spread_weight: float = 0.0
    batch: int = 128
    momentum: float = 0.9
    decay: float = 5e-4
    clip: float = 5.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimisation step of a phase, "plain" or "gated": counts from 1, the loss is that step's."""

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


Report = Callable[[Progress], None]


def train_plain(
    network: PlainNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    checkpoint: Path,
    report: Report,
) -> None:
    """Trains the plain network in place: cross-entropy on labels. Resumes from `checkpoint` where it exists."""

    def loss(batch: Tensor, targets: Tensor, _: torch.Generator) -> Tensor:
        return F.cross_entropy(network(batch).float(), targets)

    _train("plain", network, images, labels, recipe, checkpoint, report, loss)


def train_gated(
    network: GatedNetwork,
    teacher: PlainNetwork,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    checkpoint: Path,
    report: Report,
) -> None:
    """Trains the gated network in place, `teacher` frozen. Resumes from `checkpoint` where it exists."""
    teacher.eval()

    def loss(batch: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            taught = F.log_softmax(teacher(batch).float(), 1)
        total = torch.zeros(())
        sizes = [group.images for group in recipe.groups]
        parts = zip(
            recipe.groups,
            torch.split(batch, sizes),
            torch.split(targets, sizes),
            torch.split(taught, sizes),
            strict=True,
        )
        for group, part, target, wanted in parts:
            kept = group.least + (group.most - group.least) * float(torch.rand((), generator=generator))
            shares = _shares(kept, recipe, generator)
            logits, traces = network(part, kept, shares=shares, softness=recipe.softness if kept < 1 else 0.0)
            guessed = F.log_softmax(logits.float(), 1)
            distance = F.kl_div(guessed, wanted, reduction="batchmean", log_target=True)
            if kept == 1:
                distance = (distance + F.nll_loss(guessed, target)) / 2
            elif recipe.spread_weight and not network.static:
                distance = distance + recipe.spread_weight * _spread_loss(traces, shares, wanted, recipe)
            total = total + distance * (len(part) / len(batch))
        return total

    _train("gated", network, images, labels, recipe, checkpoint, report, loss)


def start_from(plain: PlainNetwork, gated: GatedNetwork, images: NDArray[np.uint8], recipe: Recipe) -> None:
    """Copies the plain network into the gated one so that it computes the same where all is kept.

    The offsets c order the channels by importance (RMS of the channel's output over `images` × norm of the next
    layer's weights for it), from 1.6 to 0.4; the norm is divided by the multiplier that this gives.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    plain.eval()
    with torch.no_grad():
        outputs = plain.activations(torch.tensor(images))
        readers = [c.weight.float().pow(2).sum((0, 2, 3)) for c in plain.convolutions[1:]] + [
            plain.head.weight.pow(2).sum(0)
        ]
        for layer, convolution, norm, output, reader in zip(
            gated.layers, plain.convolutions, plain.norms, outputs, readers, strict=True
        ):
            importance = output.float().pow(2).mean((0, 2, 3)).sqrt() * reader.sqrt()
            offset = torch.empty_like(importance)
            offset[importance.argsort(descending=True)] = torch.linspace(1.6, 0.4, len(importance))
            layer.offset.copy_(offset)
            multiplier = offset / offset.mean()
            layer.scale.copy_(norm.weight / multiplier)
            layer.shift.copy_(norm.bias / multiplier)
            layer.convolution.weight.copy_(convolution.weight)
            if not gated.static:
                features = layer.predictor.shape[1]
                layer.predictor.copy_(
                    torch.randn(layer.predictor.shape, generator=generator) * 0.1 / math.sqrt(features)
                )
        gated.head.load_state_dict(plain.head.state_dict())


def _shares(kept: float, recipe: Recipe, generator: torch.Generator) -> list[float]:
    """Each layer's share of channels where `kept` is asked for; jittered, so that calibration may allocate them
    unevenly."""
    if kept == 1:
        return [1.0] * len(recipe.exponents)
    noise = torch.randn(len(recipe.exponents), generator=generator) * recipe.jitter
    return [min(max(kept**power + float(n), 0.1), 1.0) for power, n in zip(recipe.exponents, noise, strict=True)]


def _spread_loss(traces: list[LayerTrace], shares: list[float], taught: Tensor, recipe: Recipe) -> Tensor:
    """Mean squared distance, relative to `kept`, of each image's soft share of channels from its target by the
    teacher's confidence."""
    rank = taught.max(1).values.argsort(descending=True).argsort().float() / (len(taught) - 1)  # 0: the surest
    total = torch.zeros(())
    for trace, share in zip(traces, shares, strict=True):
        kept = torch.sigmoid((trace.saliency - trace.threshold) / max(recipe.softness, 1e-3)).mean(1)
        target = share + recipe.spread * min(share, 1 - share) * (2 * rank - 1)
        total = total + ((kept - target) / share).pow(2).mean()
    return total / len(traces)


def _train(
    phase: str,
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    checkpoint: Path,
    report: Report,
    loss_of: Callable[[Tensor, Tensor, torch.Generator], Tensor],
) -> None:
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim == 4 or name == "head.weight"]
    predictors = [p for name, p in trained if name.endswith("predictor") or name.startswith("evidence")]
    others = [p for _, p in trained if not any(p is other for other in (*decayed, *predictors))]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": recipe.decay, "lr": recipe.rate}]
    groups += [{"params": others, "lr": recipe.rate}, {"params": predictors, "lr": recipe.rate * recipe.predictor_rate}]
    groups = [group for group in groups if group["params"]]
    optimiser = torch.optim.SGD(
        groups,
        lr=recipe.rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], total_steps=recipe.epochs * steps, pct_start=0.2
    )
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != _plain_data(recipe):
            raise ValueError(f"{checkpoint} was made with another recipe; remove it or train with that one")
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, recipe.epochs):
        network.train()
        generator = torch.Generator().manual_seed(
            recipe.seed * 1000 + epoch
        )  # an epoch's draws do not depend on where training resumed
        for step, (batch, targets) in enumerate(_batches(images, labels, recipe.batch, generator), 1):
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(batch, targets, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            schedule.step()
            report(Progress(phase, epoch + 1, recipe.epochs, step, steps, loss.item()))
        _save(
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "recipe": _plain_data(recipe),
            },
            checkpoint,
        )


def _plain_data(recipe: Recipe) -> dict[str, object]:
    return asdict(recipe)


def _save(state: dict[str, object], path: Path) -> None:
    """Writes beside the file and renames, so that an interruption leaves the last whole checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _batches(
    images: NDArray[np.uint8], labels: NDArray[np.int64], size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, flipped and shifted by up to two pixels; the last incomplete batch is left out."""
    padded = F.pad(torch.tensor(images), (2, 2, 2, 2))
    targets = torch.tensor(labels)
    span = torch.arange(images.shape[1])
    for chosen in torch.split(torch.randperm(len(images), generator=generator), size):
        if len(chosen) < size:
            return
        down, right = torch.randint(0, 5, (2, size), generator=generator)
        flipped = torch.rand(size, generator=generator) < 0.5
        columns = torch.where(flipped[:, None], span.flip(0), span) + right[:, None]
        rows = span + down[:, None]
        yield padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]], targets[chosen]
