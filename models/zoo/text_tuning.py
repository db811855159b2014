"""Tuning the lean layers of an encoder of texts: a short self-distillation on unlabelled texts.

The dense encoder is the teacher. The student has the lean layers that `lean_fitting` made, with low-rank differences
that begin at nothing, and learns to make the same embeddings from fewer channels; in most batches positions that are
nearly alike are joined at random, and in some steps some halves of layers are dense. Each layer also learns to give
what the dense one gives, so that dense and lean layers may take turns.

A batch is of one length, so that it is one product in each layer. Short texts are those in which the least can be
joined, and in whose mean the errors of positions even out the least: a share of the steps is theirs.

What is kept is the mean of the differences over the last steps (Polyak and Juditsky 1992), which is as good as many
more steps. The dense weights are left as they are, and level 0 is the dense encoder.

An error of an embedding counts twice: by its cosine, and by what it changes in the likeness to other texts. The latter
is, on average over many, a quadratic form of their second moment.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.zoo.bert import FEWEST_JOINED, Bert
from models.zoo.lean_differences import LayerDifferences, add_differences
from models.zoo.lean_layers import LeanLayers
from models.zoo.text_reader import Tokens
from models.zoo.text_student import TorchLayer, join
from models.zoo.tuning_checkpoint import keep, resume


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of the first of `rounds` cosine schedules, and half of it that of the next (Loshchilov and
    Hutter 2017); all of them take `steps`, of about `positions` positions each. The differences have the rank `rank`,
    and those of queries and keys half of it. Texts are cut to `longest` tokens, and in a share `short` of the steps to
    a length in `short_lengths`. In a share `joined` of the others, positions are joined behind each layer's first half,
    at thresholds of about those in `joins`, of the first layer and of the last, or down to a fifth of them: of the
    thresholds that profiles have, few are lower. In a share `mixed` of the
    steps some halves are dense. `alike` weighs by how much likenesses to `others` texts, as many as that, change,
    `layers` how far each layer is from the dense one. A checkpoint is written `every` so many steps."""

    steps: int = 12000
    rounds: int = 2
    positions: int = 2048
    rate: float = 8e-4
    rank: int = 64
    longest: int = 128
    short: float = 0.3
    short_lengths: tuple[int, int] = (8, 20)
    joined: float = 0.6
    joins: tuple[float, float] = (0.1, 0.45)
    mixed: float = 0.15
    layers: float = 0.2
    alike: float = 100.0
    others: int = 1500
    every: int = 50
    seed: int = 0

    def further(self) -> Self:
        """That of another round, for what has learned by this one."""
        return replace(self, rate=self.rate * 0.5**self.rounds, rounds=1)


FEWEST, MOST, NEAR = 4, 64, 8
"""Texts of a batch; and it is drawn from so many times as many, that are nearly of one length."""

AVERAGED = 200
"""Steps whose mean is kept, about; of the first steps fewer."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of optimisation, counted from 1; `cosine` to the dense embeddings is the batch's mean."""

    number: int
    steps: int
    cosine: float


# Of the last hidden states [texts, m, hidden], and the number of positions that each stands for, as in
# `sentence_folder`.
POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": lambda x, sizes: x[:, 0],
        "max": lambda x, sizes: x.masked_fill(sizes[..., None] == 0, -math.inf).amax(1),
        "mean": lambda x, sizes: _summed(x, sizes) / sizes.sum(1, keepdim=True),
        "mean_sqrt_len_tokens": lambda x, sizes: _summed(x, sizes) / sizes.sum(1, keepdim=True).sqrt(),
    }
)


def tune(
    encoder: Bert,
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    fitted: LeanLayers,
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
    begun: LayerDifferences = (),
) -> LayerDifferences:
    """Tunes `fitted` lean layers on sequences of tokens. `pooling` names what of the last hidden states the model's
    answer is made of. With a `checkpoint` an interrupted run goes on where its file left off; one that is `begun` has
    learned that before. Raises `ValueError` where that is of other layers, or of more ranks than the recipe's."""
    torch.manual_seed(recipe.seed)
    teacher = [TorchLayer(encoder, encoder.dense_weights(number)) for number in range(encoder.shape.layers)]
    student, averaged = ([TorchLayer(encoder, layer.weights, recipe.rank) for layer in fitted] for _ in range(2))
    if begun:
        add_differences(fitted, begun)  # which checks that they belong together
        for layers in (student, averaged):
            for layer, difference in zip(layers, begun, strict=True):
                layer.begin(difference)
    learners = nn.ModuleList([*student, *averaged])
    parameters, means = (list(nn.ModuleList(layers).parameters()) for layers in (student, averaged))
    optimiser = torch.optim.Adam(parameters, lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {encoder.digest} {[len(tokens) for tokens in sequences]}{_digest(begun)}"
    ordered = sorted(sequences, key=len)
    lengths = np.array([len(tokens) for tokens in ordered])
    moment = second_moment(encoder, teacher, pooling, ordered, recipe)
    for step in range(resume(checkpoint, about, learners, optimiser), recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, recipe)
        random = np.random.default_rng((recipe.seed, step))
        texts = draw(ordered, lengths, recipe, random)
        wanted, made, apart = _run(encoder, teacher, student, pooling, texts, recipe, random)
        made, wanted = F.normalize(made), F.normalize(wanted)
        cosine = (made * wanted).sum(1).mean()
        missed = made - wanted
        changed = (missed @ moment * missed).sum(1).mean()
        loss = 1 - cosine + recipe.alike * changed + recipe.layers * apart
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        _average(means, parameters, step)
        report(Step(step + 1, recipe.steps, float(cosine.detach())))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            keep(checkpoint, about, step + 1, learners, optimiser)
    return [layer.difference(part.kept) for layer, part in zip(averaged, fitted, strict=True)]


def _digest(begun: LayerDifferences) -> str:
    """Tells what was begun with from anything else; empty for nothing."""
    digest = 0
    for layer in begun:
        for one in layer.products.values():
            digest = zlib.crc32(one.left.tobytes(), digest)
    return f" {digest}" if begun else ""


def draw(
    ordered: Sequence[Tokens], lengths: NDArray[np.int64], recipe: TuningRecipe, random: np.random.Generator
) -> list[Tokens]:
    """Texts for a step, out of all in the order of their `lengths`, cut to one length: those of nearly that length, or,
    half of the short ones, any that are longer. They keep their last token, which ends a text."""
    odds = np.sqrt(lengths)
    length, longer = min(lengths[random.choice(len(ordered), p=odds / odds.sum())], recipe.longest), False
    if random.random() < recipe.short:
        first, last = recipe.short_lengths
        length, longer = random.integers(first, last + 1), random.random() < 0.5
    count = min(int(np.clip(recipe.positions // length, FEWEST, MOST)), len(ordered))
    start = min(int(np.searchsorted(lengths, length)), len(ordered) - count)
    end = len(ordered) if longer else min(len(ordered), start + NEAR * count)
    chosen = [ordered[i] for i in start + random.choice(end - start, count, replace=False)]
    return [_cut(tokens, int(min(length, *map(len, chosen)))) for tokens in chosen]


def _cut(tokens: Tokens, length: int) -> Tokens:
    kept = np.append(np.arange(length - 1), len(tokens) - 1)
    return Tokens(tokens.ids[kept], None if tokens.types is None else tokens.types[kept])


def rate(step: int, recipe: TuningRecipe) -> float:
    """Of a step, counted from 0."""
    steps = -(-recipe.steps // recipe.rounds)
    number, step = divmod(step, steps)
    share = min(1.0, (step + 1) / 30) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
    return recipe.rate * 0.5**number * share


@torch.no_grad()
def _average(means: Sequence[Tensor], now: Sequence[Tensor], step: int) -> None:
    share = max(1 / AVERAGED, 20 / (step + 20))
    for mean, value in zip(means, now, strict=True):
        mean.lerp_(value, share)


def _run(
    encoder: Bert,
    teacher: Sequence[TorchLayer],
    student: Sequence[TorchLayer],
    pooling: Sequence[str],
    texts: Sequence[Tokens],
    recipe: TuningRecipe,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """The dense embeddings of texts of one length, [texts, size]; those that the student makes; and how far its layers
    are from the dense ones, relative to what they give."""
    x = _embedded(encoder, texts)
    sizes, count, joined = torch.ones(x.shape[:2]), len(student), False
    taught = _taught(teacher, x)
    wanted = _embeddings(pooling, taught[-1], sizes)
    thresholds = np.zeros(count)
    if encoder.position_gates and x.shape[1] >= FEWEST_JOINED and random.random() < recipe.joined:
        # Together rather than one by one: a profile closes all of them.
        thresholds = np.linspace(*recipe.joins, count) * random.uniform(0.4, 1) * random.uniform(0.5, 1.3, count)
    lean = random.random((count, 2)) < (random.uniform(0.3, 1) if random.random() < recipe.mixed else 1)
    lean[random.integers(count)] = True  # there is always something to learn
    if encoder.shape.looks_up:
        lean[0, 0] = False  # as it is served
    apart, compared = torch.zeros(()), 0
    for i, layers in enumerate(zip(teacher, student, strict=True)):
        x = layers[int(lean[i, 0])].attend(x, sizes if joined else None)
        if thresholds[i] > 0:
            x, sizes = join(x, sizes, thresholds[i])
            joined = True
        x = layers[int(lean[i, 1])].feed_forward(x)
        if not joined:
            apart = apart + (x - taught[i]).square().sum() / taught[i].square().sum()
            compared += 1
    return wanted, _embeddings(pooling, x, sizes), apart / max(1, compared)


@torch.no_grad()
def second_moment(
    encoder: Bert,
    teacher: Sequence[TorchLayer],
    pooling: Sequence[str],
    ordered: Sequence[Tokens],
    recipe: TuningRecipe,
) -> Tensor:
    """Of the dense embeddings of texts of all lengths, [size, size]: the mean of (e · d)² over them is d · moment d."""
    drawn = np.unique(np.linspace(0, len(ordered) - 1, recipe.others).astype(int))
    made = []
    for part in np.array_split(drawn, math.ceil(len(drawn) / NEAR)):
        length = min(recipe.longest, len(ordered[part[0]]))
        x = _embedded(encoder, [_cut(ordered[i], length) for i in part])
        made.append(F.normalize(_embeddings(pooling, _taught(teacher, x)[-1], torch.ones(x.shape[:2]))))
    embeddings = torch.cat(made)
    return embeddings.T @ embeddings / len(embeddings)


def _embedded(encoder: Bert, texts: Sequence[Tokens]) -> Tensor:
    """The first layer's input for texts of one length."""
    return torch.from_numpy(np.stack([encoder.embed(tokens.ids, tokens.types) for tokens in texts]))


@torch.no_grad()
def _taught(teacher: Sequence[TorchLayer], x: Tensor) -> list[Tensor]:
    """What each dense layer gives."""
    taught = []
    for layer in teacher:
        x = layer.feed_forward(layer.attend(x))
        taught.append(x)
    return taught


def _embeddings(pooling: Sequence[str], x: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([POOLINGS[name](x, sizes) for name in pooling], 1)


def _summed(x: Tensor, sizes: Tensor) -> Tensor:
    return (sizes[:, None] @ x)[:, 0]
