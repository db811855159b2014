"""Tuning the lean layers of an encoder of texts: a short self-distillation on unlabelled texts.

The dense encoder is the teacher. The student has its lean layers, which begin as `lean_fitting` makes them, and learns
to make the same embeddings from fewer channels; in every text positions that are nearly alike are joined at random.
Each layer also learns to give what the dense one gives, so that dense and lean layers may take turns.

The dense weights are left as they are, and level 0 is the dense encoder.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models import kernels
from models.model import GateContext
from models.zoo.bert import DENSE, Bert
from models.zoo.lean_fitting import LeanRecipe, fit_lean
from models.zoo.lean_layers import LeanLayer, LeanLayers
from models.zoo.text_reader import Tokens

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of a cosine schedule over `steps` of `batch` texts. The threshold for joining positions is
    drawn up to `joined`, in the later half of the layers. `pairs` weighs how alike the texts of a batch are to each
    other, `layers` how far each layer is from the dense one. The layers are fitted on `fitted_on` texts, and keep what
    `lean` says; a checkpoint is written `every` so many steps."""

    steps: int = 1500
    batch: int = 16
    rate: float = 2e-4
    joined: float = 0.3
    layers: float = 0.2
    pairs: float = 1.0
    fitted_on: int = 1000
    lean: LeanRecipe = field(default_factory=LeanRecipe)
    every: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a phase, counted from 1: "dense", a text through the teacher, or "tuning", one of optimisation, whose
    `cosine` to the dense embeddings is the batch's mean."""

    phase: str
    number: int
    steps: int
    cosine: float = 0.0


# Of the last hidden states [m, hidden], and the number of positions that each stands for, as in `sentence_folder`.
POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": lambda x, sizes: x[0],
        "max": lambda x, sizes: x.max(0).values,
        "mean": lambda x, sizes: sizes.to(x.dtype) @ x / sizes.sum(),
        "mean_sqrt_len_tokens": lambda x, sizes: sizes.to(x.dtype) @ x / sizes.sum().sqrt(),
    }
)


class StudentLayer(nn.Module):
    """One lean layer, which is trained. It takes the positions of several texts, one after the other, x [m, hidden];
    `lengths` says how many are each text's."""

    def __init__(self, encoder: Bert, part: LeanLayer) -> None:
        super().__init__()
        self.part, self.shape, self.scale = part, encoder.shape, encoder.shape.head_size**-0.5
        self.distances = encoder.distances
        weights, biases = zip(*part.weights.values(), strict=True)
        self.weights, self.biases = (
            nn.ParameterDict(
                {
                    name: nn.Parameter(torch.from_numpy(np.array(one)))
                    for name, one in zip(part.weights, of, strict=True)
                }
            )
            for of in (weights, biases)
        )
        # Products in bf16 are near enough to learn by, and several times as fast where the processor has it.
        self.fast = kernels.instruction_set("bf16") in ("amx", "avx512")

    def attend(self, x: Tensor, sizes: Tensor, lengths: list[int]) -> Tensor:
        """The first half; each row of x stands for `sizes` positions."""
        mixed = []
        for queries, keys, values, size in zip(
            *(torch.split(self._product(x, name), lengths) for name in ("query", "key", "value")),
            torch.split(sizes, lengths),
            strict=True,
        ):
            keys, values = (part.repeat_interleave(size, 0) for part in (keys, values))
            q, k, v = (
                part.reshape(len(part), self.shape.heads, -1).transpose(0, 1)[None] for part in (queries, keys, values)
            )
            bias = self.distances(len(queries))
            mask = None if bias is None else torch.from_numpy(bias)
            heads = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
            mixed.append(heads[0].transpose(0, 1).flatten(1))
        return self._normalised(x + self._product(torch.cat(mixed), "output"), "attention_norm")

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half."""
        return self._normalised(x + self._product(F.gelu(self._product(x, "up")), "down"), "norm")

    def learned(self) -> LeanLayer:
        """What is kept of it."""

        def array(values: Tensor) -> Array:
            return values.detach().numpy().copy()

        learned = {name: (array(weight), array(self.biases[name])) for name, weight in self.weights.items()}
        return LeanLayer(learned, self.part.score_saliency, self.part.neuron_saliency)

    def _product(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[name]
        if not self.fast:
            return F.linear(x, weight, self.biases[name])
        made: Tensor = F.linear(x.bfloat16(), weight.bfloat16()).to(x.dtype) + self.biases[name]
        return made

    def _normalised(self, x: Tensor, norm: str) -> Tensor:
        normalised: Tensor = F.layer_norm(x, (x.shape[1],), self.weights[norm], self.biases[norm], self.shape.epsilon)
        return normalised


def tune(
    encoder: Bert,
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> LeanLayers:
    """Tunes on sequences of tokens. `pooling` names what of the last hidden states the model's answer is made of. With
    a `checkpoint` an interrupted run goes on where its file left off."""
    torch.manual_seed(recipe.seed)
    teacher = []
    for number, tokens in enumerate(sequences):
        encoded = encoder(tokens.ids, GateContext(0.0), DENSE, types=tokens.types)
        teacher.append(_pooled(pooling, torch.from_numpy(encoded.states), torch.from_numpy(encoded.sizes)))
        report(Step("dense", number + 1, len(sequences)))
    fitted = fit_lean(encoder, sequences[: recipe.fitted_on], recipe=recipe.lean)
    student = [StudentLayer(encoder, part) for part in fitted]
    parameters = [parameter for layer in student for parameter in layer.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {encoder.digest} {[len(tokens) for tokens in sequences]}"
    done = _resume(checkpoint, about, student, optimiser)
    for step in range(done, recipe.steps):
        warm, share = min(1.0, (step + 1) / 30), step / recipe.steps
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        random = np.random.default_rng((recipe.seed, step))
        chosen = random.integers(0, len(sequences), recipe.batch)
        made, apart = _run(encoder, student, pooling, [sequences[i] for i in chosen], recipe, random)
        wanted = torch.stack([teacher[i] for i in chosen])
        made, wanted = F.normalize(made), F.normalize(wanted)
        cosine = (made * wanted).sum(1).mean()
        loss = 1 - cosine + recipe.pairs * (made @ made.T - wanted @ wanted.T).square().mean() + recipe.layers * apart
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        report(Step("tuning", step + 1, recipe.steps, float(cosine.detach())))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            _keep(checkpoint, about, step + 1, student, optimiser)
    return [layer.learned() for layer in student]


def _run(
    encoder: Bert,
    student: Sequence[StudentLayer],
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    recipe: TuningRecipe,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """The embeddings that the student makes of sequences, [sequences, size], with positions joined at random; and how
    far its layers are from the dense ones on the same inputs, relative to what they add."""
    lengths = [len(tokens) for tokens in sequences]
    x = torch.from_numpy(np.concatenate([encoder.embed(tokens.ids, tokens.types) for tokens in sequences]))
    sizes = torch.ones(len(x), dtype=torch.int64)
    joins = random.uniform(0, recipe.joined, len(lengths)) * (random.random(len(lengths)) < 0.75)
    taught = _taught(encoder, x, lengths)
    apart = torch.zeros(())
    for i, layer in enumerate(student):
        x = layer.attend(x, sizes, lengths)
        if encoder.position_gates and i >= len(student) // 2 - 1:
            thresholds = joins * random.uniform(0.5, 1.5, len(lengths))
            parts = zip(torch.split(x, lengths), torch.split(sizes, lengths), thresholds, strict=True)
            joined = [join(rows, size, float(threshold)) for rows, size, threshold in parts]
            x, sizes = (torch.cat(part) for part in zip(*joined, strict=True))
            lengths = [len(rows) for rows, _ in joined]
        x = layer.feed_forward(x)
        if len(x) == len(taught[i]):  # nothing was joined
            apart = apart + (x - taught[i]).square().sum() / taught[i].square().sum()
    states = zip(torch.split(x, lengths), torch.split(sizes, lengths), strict=True)
    return torch.stack([_pooled(pooling, rows, size) for rows, size in states]), apart / len(student)


def _taught(encoder: Bert, x: Tensor, lengths: list[int]) -> list[Tensor]:
    """What each dense layer gives, the positions of all sequences one after the other."""
    taught = []
    for layer in encoder.layers:
        rows = [encoder.layer(part.numpy(), layer) for part in torch.split(x, lengths)]
        x = torch.from_numpy(np.concatenate(rows))
        taught.append(x)
    return taught


def _pooled(pooling: Sequence[str], x: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([POOLINGS[name](x, sizes) for name in pooling])


def join(x: Tensor, sizes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """`kernels.merge_positions`, with a gradient through the means."""
    if len(x) < 3 or threshold <= 0:
        return x, sizes
    with torch.no_grad():
        unit = F.normalize(x)
        likeness, nearest = (unit[2::2] @ unit[1::2].T).max(1)
        joined = 1 - likeness <= threshold
        sources, targets = 2 * torch.nonzero(joined)[:, 0] + 2, 2 * nearest[joined] + 1
        kept = torch.ones(len(x), dtype=torch.bool)
        kept[sources] = False
        total = sizes.index_add(0, targets, sizes[sources])
    weighted = x * sizes[:, None]
    mean = weighted.index_add(0, targets, weighted[sources]) / total[:, None]
    return mean[kept], total[kept]


def _keep(path: Path, about: str, step: int, student: Sequence[StudentLayer], optimiser: torch.optim.Optimizer) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {
        "about": about,
        "step": step,
        "layers": [layer.state_dict() for layer in student],
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path | None, about: str, student: Sequence[StudentLayer], optimiser: torch.optim.Optimizer) -> int:
    """The steps that are done; none where the checkpoint is that of another tuning."""
    if path is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["about"] != about:
        return 0
    for layer, kept in zip(student, state["layers"], strict=True):
        layer.load_state_dict(kept)
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
