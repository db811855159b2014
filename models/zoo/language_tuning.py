"""Tuning the gates of a language model: a short self-distillation on unlabelled text.

The dense model teaches itself under gates, at levels drawn at random along its profile, what it says of each next token
(Hinton et al. 2015). Trained is what stands for a channel that is not read in full, which calibration begins as its
mean: it then stands for those values of the channel that the gate leaves out, and only what they are beside it is read
coarsely. Nothing else of the model is touched, a step costs what it did, and level 0 is the dense model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import kernels
from models.zoo.language_gates import masking
from models.zoo.language_model import LanguageModel
from models.zoo.llama_gates import GATES, SINKS, care_name, gate_name
from models.zoo.llama_packing import Array, Weights
from models.zoo.llama_torch import TorchLlama
from models.zoo.tuning_checkpoint import Step, keep, resume

STOOD_FOR = ("attention", "output", "feed_forward", "down")
"""The gates whose skipped channels something stands for."""


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of a cosine schedule over `steps` of `batch` windows, in standard deviations of a channel. A
    level is drawn from `lowest` to 1. A checkpoint is written `every` so many steps."""

    steps: int = 300
    batch: int = 2
    rate: float = 0.02
    lowest: float = 0.4
    every: int = 20
    seed: int = 0


class Student(nn.Module):
    """A language model under its gates; its weights are constants. Trainable is, of each gate in `STOOD_FOR`, how far
    what stands for its channels is from their means, in `spreads`."""

    def __init__(self, model: LanguageModel, weights: Weights, calibration: Mapping[str, Array]) -> None:
        super().__init__()
        network = model.network
        self.decoder, self.gates = TorchLlama(network.shape, weights, network.coarse_weights()), network.gates
        self.coarse = network.coarse_gates
        found = masking(network, calibration, np.zeros(len(self.gates), np.float32))
        self.norms = [torch.from_numpy(np.array(norms)) for norms in found.norms]
        self.means = {
            gate: torch.from_numpy(calibration.get(gate, np.zeros(len(norms), np.float32)))
            for gate, norms in zip(self.gates, found.norms, strict=True)
            if gate.rpartition(".")[2] in STOOD_FOR
        }
        shape = network.shape
        none = np.zeros(shape.hidden, np.float32)
        self.cares = [torch.from_numpy(calibration.get(care_name(i), none)) for i in range(shape.layers)]
        self.spreads = {gate: torch.ones(len(mean)) for gate, mean in self.means.items()}
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(len(mean))) for mean in self.means.values()])
        self._places = {gate: place for place, gate in enumerate(self.means)}

    def stand_in(self, gate: str) -> Tensor:
        """What stands for the channels of a gate that are skipped."""
        offset: Tensor = self.offsets[self._places[gate]]
        return self.means[gate] + self.spreads[gate] * offset

    def calibration(self) -> dict[str, Array]:
        """That of all gates."""
        return {gate: self.stand_in(gate).detach().numpy().astype(np.float32) for gate in self.means}

    def spread_by(self, tokens: Tensor) -> None:
        """Measures by how much channels vary."""

        def see(layer: int, gate: str, values: Tensor) -> Tensor:
            if gate in STOOD_FOR:
                self.spreads[gate_name(layer, gate)] = values.flatten(0, 1).std(0)
            return values

        with torch.no_grad():
            self.decoder(tokens, see)

    def forward(self, tokens: Tensor, thresholds: Tensor) -> Tensor:
        """The logits [n, positions, vocabulary] of tokens [n, positions] under thresholds [gates]; that of the head is
        left out."""

        care = torch.ones(1)

        def see(layer: int, gate: str, values: Tensor) -> Tensor:
            nonlocal care
            number = len(GATES) * layer + GATES.index(gate)
            if gate == GATES[0]:
                care = (values @ self.cares[layer]).exp()[..., None]
            if not thresholds[number] > 0:
                return values
            stand_in = self.stand_in(self.gates[number]) if gate in STOOD_FOR else torch.zeros(())
            active = (values - stand_in).abs() * self.norms[number] * care > thresholds[number]
            if self.coarse[number]:
                active |= active.float().mean(-1, keepdim=True) > kernels.SHARE_BESIDE_COARSE
            active[:, :SINKS] = True
            return torch.where(active, values, stand_in)

        return self.decoder(tokens, see)


def tune(
    model: LanguageModel,
    weights: Weights,
    windows: Sequence[Sequence[int]],
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> dict[str, Array]:
    """The calibration of a calibrated model, tuned on windows of tokens, all of one length. With a `checkpoint` an
    interrupted run goes on where its file left off."""
    student, tokens = Student(model, weights, model.calibration), torch.tensor(windows)
    student.spread_by(tokens[: recipe.batch])
    optimiser = torch.optim.Adam(student.parameters(), lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {model.digest} {model.profile.points} {tokens.shape} {int(tokens.sum())}"
    for step in range(resume(checkpoint, about, student, optimiser), recipe.steps):
        share = step / recipe.steps
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * share)) / 2
        random = np.random.default_rng((recipe.seed, step))
        chosen = tokens[torch.from_numpy(random.integers(0, len(tokens), recipe.batch))]
        thresholds = torch.from_numpy(model.thresholds(float(random.uniform(recipe.lowest, 1))))
        divergence = _divergence(student, chosen, thresholds)
        optimiser.zero_grad()
        divergence.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        report(Step(step + 1, recipe.steps, float(divergence.detach())))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            keep(checkpoint, about, step + 1, student, optimiser)
    return dict(model.calibration) | student.calibration()


def _divergence(student: Student, tokens: Tensor, thresholds: Tensor) -> Tensor:
    """Kullback and Leibler's from the dense model, in nats a token."""
    with torch.no_grad():
        dense = student.decoder(tokens).log_softmax(-1)
    gated = student(tokens, thresholds).log_softmax(-1)
    return F.kl_div(gated.flatten(0, 1), dense.flatten(0, 1), reduction="batchmean", log_target=True)
