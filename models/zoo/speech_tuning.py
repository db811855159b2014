"""Tuning the gates of a model of speech: a short self-distillation on recordings without texts.

The dense model teaches itself under gates, at levels drawn at random along its profile, what it says of each next
word of what it heard (Hinton et al. 2015). Trained is what stands for what is skipped: for neurons and heads what
calibration begins as their means, for positions past the speech an offset to the one that stands for many. Nothing else
is touched, a request costs what it did, and level 0 is the dense model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.model import GateContext
from models.zoo.speech import SpeechRecognizer
from models.zoo.speech_calibration import Example
from models.zoo.tuning_checkpoint import Step, keep, resume
from models.zoo.whisper import HEADS_GATE, POSITIONS_GATE
from models.zoo.whisper_heads import CalibratedHeads
from models.zoo.whisper_layers import SAMPLED, Array
from models.zoo.whisper_positions import Positions, active_positions
from models.zoo.whisper_torch import TorchWhisper
from models.zoo.whisper_words import Calibrated


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of a cosine schedule over `steps` of `batch` recordings, in standard deviations of a channel.
    A level is drawn from `lowest` to 1. A checkpoint is written `every` so many steps."""

    steps: int = 300
    batch: int = 4
    rate: float = 0.02
    lowest: float = 0.4
    every: int = 10
    seed: int = 0


class Student(nn.Module):
    """A model of speech under its gates; its weights are constants. Trainable is, of each gate on neurons, of each
    attention and of the positions, how far what stands for their channels is from what is calibrated, in `spreads`."""

    def __init__(self, model: SpeechRecognizer, tensors: Mapping[str, Array], calibrated: Calibrated) -> None:
        super().__init__()
        whisper = model.whisper
        self.network, self.calibrated = TorchWhisper(whisper.shape, tensors), calibrated
        self.norms, found = {}, {}
        for name, means in zip(whisper.neuron_gates, calibrated.means, strict=True):
            gate = whisper.gate(name)
            assert gate is not None
            self.norms[name], found[name] = torch.from_numpy(gate.norms), means
        for name, heads in zip(whisper.attentions, calibrated.heads, strict=bool(calibrated.heads)):
            found[name] = heads.means
        found[POSITIONS_GATE] = (
            np.zeros(whisper.shape.hidden, np.float32) if calibrated.silence is None else calibrated.silence
        )
        self.begun = {name: torch.from_numpy(np.array(values)) for name, values in found.items()}
        self.spreads = {name: torch.ones(len(values)) for name, values in found.items()}
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(len(values))) for values in found.values()])
        self.saliency = dict(zip(whisper.attentions, (heads.saliency for heads in calibrated.heads), strict=False))
        self._places = {name: place for place, name in enumerate(found)}

    def stand_in(self, name: str) -> Tensor:
        """What stands for the channels of a gate that are skipped."""
        offset: Tensor = self.offsets[self._places[name]]
        return self.begun[name] + self.spreads[name] * offset

    def tuned(self) -> Calibrated:
        """The calibration with it."""
        stood_for = {name: self.stand_in(name).detach().numpy().astype(np.float32) for name in self.begun}
        return replace(
            self.calibrated,
            means=[stood_for[name] for name in self.norms],
            heads=[
                CalibratedHeads(stood_for[name], heads.saliency)
                for name, heads in zip(self.network.attentions, self.calibrated.heads, strict=False)
            ],
            silence=stood_for[POSITIONS_GATE],
        )

    def spread_by(self, heard: Sequence[Example]) -> None:
        """Measures by how much channels vary."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self.begun}

        def see(name: str, values: Tensor) -> Tensor:
            if name in seen:
                seen[name].append(values)
            return values

        with torch.no_grad():
            for example in heard:
                stem = self.network.stem(torch.from_numpy(example.spectrum))
                see(POSITIONS_GATE, stem)
                positions = self._positions(example, 0.0)
                self.network.score(
                    torch.tensor(example.tokens), self.network.encode(stem, positions, see), positions, see
                )
        self.spreads = {name: torch.cat(values).std(0) for name, values in seen.items()}

    def forward(self, example: Example, thresholds: Mapping[str, float]) -> Tensor:
        """The logits [n, vocabulary] of what was heard, without what came before it, under the thresholds; that of the
        gate on words is left out."""
        closed = thresholds.get(HEADS_GATE, 0.0)

        def see(name: str, values: Tensor) -> Tensor:
            if name in self.saliency:
                kept = torch.from_numpy(
                    np.repeat(self.saliency[name] > closed, values.shape[1] // len(self.saliency[name]))
                )
                return torch.where(kept, values, self.stand_in(name)) if closed else values
            threshold = thresholds.get(name, 0.0)
            if name not in self.norms or not threshold:
                return values
            stand_in = self.stand_in(name)
            # As the layers choose: a few positions of the encoder tell for all, each token of the decoder for itself.
            sample = values[::SAMPLED] if name.startswith("encoder") else values[None]
            off = (sample - stand_in).detach().square().mean(0).sqrt()
            return torch.where(off * self.norms[name] > threshold, values, stand_in)

        positions = self._positions(example, thresholds.get(POSITIONS_GATE, 0.0))
        with torch.no_grad():
            stem = self.network.stem(torch.from_numpy(example.spectrum))[torch.from_numpy(positions.all_ids)]
        past = torch.arange(len(positions)) >= positions.near
        x = stem + past[:, None] * self.stand_in(POSITIONS_GATE)
        heard = self.network.encode(x, positions, see)
        return self.network.score(torch.tensor(example.tokens), heard, positions, see)[example.prompted - 1 : -1]

    def _positions(self, example: Example, threshold: float) -> Positions:
        return active_positions(-(-example.speech // 2), self.network.shape.positions, threshold)


def tune(
    model: SpeechRecognizer,
    tensors: Mapping[str, Array],
    calibrated: Calibrated,
    heard: Sequence[Example],
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> Calibrated:
    """The calibration of a calibrated model, tuned on what it heard. With a `checkpoint` an interrupted run goes on
    where its file left off. Raises `ValueError` for a model that is dense."""
    if len(model.profile.points) < 2:
        name = model.profile.model
        raise ValueError(f"{name} is dense, and has no gates that could be tuned: run sluice calibrate {name} first")
    student = Student(model, tensors, calibrated)
    student.spread_by(heard[:: max(1, len(heard) // 8)])
    optimiser = torch.optim.Adam(student.parameters(), lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {model.digest} {model.profile.points} {[example.tokens for example in heard]}"
    for step in range(resume(checkpoint, about, student, optimiser), recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        random = np.random.default_rng((recipe.seed, step))
        optimiser.zero_grad()
        divergence = 0.0
        for number in random.integers(0, len(heard), recipe.batch):
            thresholds = model.profile.at(float(random.uniform(recipe.lowest, 1))).thresholds
            loss = _divergence(model, student, heard[number], thresholds) / recipe.batch
            loss.backward()  # type: ignore[no-untyped-call]
            divergence += float(loss.detach())
        optimiser.step()
        report(Step(step + 1, recipe.steps, divergence))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            keep(checkpoint, about, step + 1, student, optimiser)
    return student.tuned()


def _divergence(model: SpeechRecognizer, student: Student, example: Example, thresholds: Mapping[str, float]) -> Tensor:
    """Kullback and Leibler's from the dense model, in nats a token."""
    whisper, context = model.whisper, GateContext(0.0)
    decoding = whisper.listen(whisper.encode(example.spectrum, example.speech, context), context)
    logits = whisper.score(example.tokens, decoding, context)[example.prompted - 1 : -1]
    dense = torch.from_numpy(logits).log_softmax(-1)
    gated = student(example, thresholds).log_softmax(-1)
    return F.kl_div(gated, dense, reduction="batchmean", log_target=True)
