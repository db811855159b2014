"""Tuning the gates of a language model: a short self-distillation on unlabelled text.

The dense model teaches itself under gates, at levels drawn at random along its profile, what it says of each next
token (Hinton et al. 2015). Trained is what stands for a channel that is skipped, which calibration begins as its mean:
it then stands for those values of the channel that the gate does skip. Nothing else of the model is touched, a step
costs what it did, and level 0 is the dense model.
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
from models.zoo.llama import GATES, Array, Weights
from models.zoo.llama_shape import LlamaShape

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


@dataclass(frozen=True, slots=True)
class Step:
    """A step, counted from 1, and the divergence from the dense model in it, in nats a token."""

    number: int
    steps: int
    divergence: float


class Student(nn.Module):
    """A language model with its gates in torch; its weights are constants. Trainable is, of each gate in `STOOD_FOR`,
    how far what stands for its channels is from their means, in `spreads`."""

    def __init__(self, model: LanguageModel, weights: Weights, calibration: Mapping[str, Array]) -> None:
        super().__init__()
        network = model.network
        self.shape, self.gates = network.shape, network.gates
        fast = kernels.instruction_set("bf16") in ("amx", "avx512")
        kind = torch.bfloat16 if fast else torch.float32
        self.weights = {name: _tensor(weights, name, kind) for name in _names(self.shape, weights)}
        found = masking(network, calibration, np.zeros(len(self.gates), np.float32))
        self.norms = [torch.from_numpy(np.array(norms)) for norms in found.norms]
        widths = self.shape.gates()[0]
        self.means = {
            gate: torch.from_numpy(calibration.get(gate, np.zeros(width, np.float32)))
            for gate, width in zip(self.gates, widths, strict=True)
            if gate.rpartition(".")[2] in STOOD_FOR
        }
        self.spreads = {gate: torch.ones(len(mean)) for gate, mean in self.means.items()}
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(len(mean))) for mean in self.means.values()])
        self._places = {gate: place for place, gate in enumerate(self.means)}
        angles = torch.arange(self.shape.positions)[:, None] * torch.from_numpy(self.shape.frequencies)
        self.turns = torch.cat([angles.cos()] * 2, 1), torch.cat([angles.sin()] * 2, 1)

    def stand_in(self, gate: str) -> Tensor:
        """What stands for the channels of a gate that are skipped."""
        offset: Tensor = self.offsets[self._places[gate]]
        return self.means[gate] + self.spreads[gate] * offset

    def calibration(self) -> dict[str, Array]:
        """That of all gates."""
        return {gate: self.stand_in(gate).detach().numpy().astype(np.float32) for gate in self.means}

    def forward(self, tokens: Tensor, thresholds: Tensor | None, seen: dict[str, Tensor] | None = None) -> Tensor:
        """The logits [n, positions, vocabulary] of tokens [n, positions], dense without thresholds [gates]. `seen`
        takes the values of each gate's channels."""
        x = F.embedding(tokens, self.weights["model.embed_tokens.weight"]).float()
        gating = _Gating(self, thresholds, seen)
        for i in range(self.shape.layers):
            x = x + self._attention(x, i, gating)
            x = x + self._feed_forward(x, i, gating)
        head = "lm_head" if "lm_head.weight" in self.weights else "model.embed_tokens"
        return self._linear(self._norm(x, "model.norm"), head)

    def _attention(self, x: Tensor, layer: int, gating: "_Gating") -> Tensor:
        shape, name = self.shape, f"model.layers.{layer}.self_attn"
        normed = gating(layer, "attention", self._norm(x, f"model.layers.{layer}.input_layernorm"))

        def heads(part: str, count: int) -> Tensor:
            made = self._linear(normed, f"{name}.{part}_proj").reshape(*x.shape[:2], count, -1)
            if f"{name}.{part}_norm.weight" in self.weights:
                made = self._norm(made, f"{name}.{part}_norm")
            return made.transpose(1, 2)

        queries, keys = self._turned(heads("q", shape.heads)), self._turned(heads("k", shape.key_heads))
        share, window = shape.heads // shape.key_heads, shape.windows[layer]
        keys, values = (part.repeat_interleave(share, 1) for part in (keys, heads("v", shape.key_heads)))
        places = torch.arange(x.shape[1])
        behind = places[:, None] - places
        hidden = (behind < 0) | (behind >= window if window else behind < 0)
        kind = self.weights[f"{name}.q_proj.weight"].dtype
        mixed = F.scaled_dot_product_attention(queries.to(kind), keys.to(kind), values.to(kind), ~hidden).float()
        return self._linear(gating(layer, "output", mixed.transpose(1, 2).flatten(2)), f"{name}.o_proj")

    def _feed_forward(self, x: Tensor, layer: int, gating: "_Gating") -> Tensor:
        name = f"model.layers.{layer}.mlp"
        normed = self._norm(x, f"model.layers.{layer}.post_attention_layernorm")
        gates = F.silu(self._linear(gating(layer, "feed_forward", normed), f"{name}.gate_proj"))
        products = gating(layer, "neurons", gates) * self._linear(normed, f"{name}.up_proj")
        return self._linear(gating(layer, "down", products), f"{name}.down_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        made = F.linear(x.to(weight.dtype), weight).float()
        return made if bias is None else made + bias.float()

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"].float(), self.shape.epsilon)

    def _turned(self, x: Tensor) -> Tensor:
        cosines, sines = (turn[: x.shape[2]] for turn in self.turns)
        first, second = x.chunk(2, -1)
        return x * cosines + torch.cat([-second, first], -1) * sines


@dataclass(frozen=True, slots=True)
class _Gating:
    """The gates of one pass."""

    student: Student
    thresholds: Tensor | None
    seen: dict[str, Tensor] | None

    def __call__(self, layer: int, gate: str, values: Tensor) -> Tensor:
        student, number = self.student, len(GATES) * layer + GATES.index(gate)
        if self.seen is not None:
            self.seen[student.gates[number]] = values
        if self.thresholds is None or not self.thresholds[number] > 0:
            return values
        stand_in = student.stand_in(student.gates[number]) if gate in STOOD_FOR else torch.zeros(())
        active = (values - stand_in).abs() * student.norms[number] > self.thresholds[number]
        return torch.where(active, values, stand_in)


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
    with torch.no_grad():
        seen: dict[str, Tensor] = {}
        student(tokens[: recipe.batch], None, seen)
        student.spreads = {gate: seen[gate].flatten(0, 1).std(0) for gate in student.means}
    optimiser = torch.optim.Adam(student.parameters(), lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {model.digest} {model.profile.points} {tokens.shape} {int(tokens.sum())}"
    for step in range(_resume(checkpoint, about, student, optimiser), recipe.steps):
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
            _keep(checkpoint, about, step + 1, student, optimiser)
    return dict(model.calibration) | student.calibration()


def _divergence(student: Student, tokens: Tensor, thresholds: Tensor) -> Tensor:
    """Kullback and Leibler's from the dense model, in nats a token."""
    with torch.no_grad():
        dense = student(tokens, None).log_softmax(-1)
    gated = student(tokens, thresholds).log_softmax(-1)
    return F.kl_div(gated.flatten(0, 1), dense.flatten(0, 1), reduction="batchmean", log_target=True)


def _names(shape: LlamaShape, weights: Weights) -> list[str]:
    """Of all tensors that a checkpoint has for this shape."""
    names = ["model.embed_tokens.weight", "model.norm.weight", *([] if shape.tied else ["lm_head.weight"])]
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        names += [f"{layer}.{norm}_layernorm.weight" for norm in ("input", "post_attention")]
        parts = [f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
        parts += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
        names += [f"{layer}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    return [name for name in names if name in weights]


def _tensor(weights: Weights, name: str, kind: torch.dtype) -> Tensor:
    return torch.from_numpy(np.array(weights[name])).to(kind if weights[name].ndim == 2 else torch.float32)


def _keep(path: Path, about: str, step: int, student: Student, optimiser: torch.optim.Optimizer) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {"about": about, "step": step, "student": student.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path | None, about: str, student: Student, optimiser: torch.optim.Optimizer) -> int:
    """The steps that are done; none where the checkpoint is that of another tuning."""
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["about"] != about:
        return 0
    student.load_state_dict(state["student"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
