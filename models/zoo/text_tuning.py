"""Tuning the lean layers of an encoder of texts: a short self-distillation on unlabelled texts.

The dense encoder is the teacher. The student has the lean layers that `lean_fitting` made, with low-rank differences
that begin at nothing, and learns to make the same embeddings from fewer channels; in every text positions that are
nearly alike are joined at random, and in some steps some halves of layers are dense. Each layer also learns to give
what the dense one gives, so that dense and lean layers may take turns.

The dense weights are left as they are, and level 0 is the dense encoder.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models import kernels
from models.zoo.bert import Bert
from models.zoo.lean_differences import LayerDifference, LayerDifferences, NormDifference, ProductDifference
from models.zoo.lean_layers import NORMS, PRODUCTS, LayerWeights, LeanLayers, Neurons
from models.zoo.text_reader import Tokens
from models.zoo.tuning_checkpoint import keep, resume

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of a cosine schedule over `steps` of `batch` texts. The differences have the rank `rank`, and
    those of queries and keys half of it. The threshold for joining positions is drawn up to `joined`, in the later half
    of the layers. In a share `mixed` of the steps some halves are dense. `pairs` weighs how alike the texts of a batch
    are to each other, `layers` how far each layer is from the dense one. A checkpoint is written `every` so many
    steps."""

    steps: int = 1500
    batch: int = 32
    rate: float = 1.5e-3
    rank: int = 8
    joined: float = 0.3
    mixed: float = 0.3
    layers: float = 1.0
    pairs: float = 1.0
    every: int = 50
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A step of optimisation, counted from 1; `cosine` to the dense embeddings is the batch's mean."""

    number: int
    steps: int
    cosine: float


# Of the last hidden states [m, hidden], and the number of positions that each stands for, as in `sentence_folder`.
POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": lambda x, sizes: x[0],
        "max": lambda x, sizes: x.max(0).values,
        "mean": lambda x, sizes: sizes.to(x.dtype) @ x / sizes.sum(),
        "mean_sqrt_len_tokens": lambda x, sizes: sizes.to(x.dtype) @ x / sizes.sum().sqrt(),
    }
)


class TorchLayer(nn.Module):
    """One layer with differences of some rank, which are trained; of rank 0, a dense layer, it has none. It takes the
    positions of several texts, one after the other, x [m, hidden]; `lengths` says how many are each text's."""

    def __init__(self, encoder: Bert, weights: LayerWeights, rank: int = 0) -> None:
        super().__init__()
        self.shape, self.scale, self.distances = encoder.shape, encoder.shape.head_size**-0.5, encoder.distances
        self.begun = {
            name: (torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(bias)))
            for name, (weight, bias) in weights.items()
        }
        self.learned = nn.ParameterDict()
        for name, (weight, bias) in self.begun.items() if rank else ():
            self.learned[f"{name}_bias"] = nn.Parameter(torch.zeros_like(bias))
            if name in NORMS:
                self.learned[f"{name}_weight"] = nn.Parameter(torch.zeros_like(weight))
            else:
                outputs, inputs = weight.shape
                ranks = max(1, rank // 2) if name in ("query", "key") else rank
                self.learned[f"{name}_left"] = nn.Parameter(torch.zeros(outputs, ranks))
                self.learned[f"{name}_right"] = nn.Parameter(torch.randn(ranks, inputs) * inputs**-0.5)
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

    def difference(self, kept: Neurons) -> LayerDifference:
        """What it learned, with the neurons that it has."""

        def array(name: str) -> Array:
            learned: Array = self.learned[name].detach().numpy().copy()
            return learned

        products = {
            name: ProductDifference(array(f"{name}_left"), array(f"{name}_right"), array(f"{name}_bias"))
            for name in PRODUCTS
        }
        norms = {name: NormDifference(array(f"{name}_weight"), array(f"{name}_bias")) for name in NORMS}
        return LayerDifference(products, norms, kept)

    def _weights(self, name: str) -> tuple[Tensor, Tensor]:
        weight, bias = self.begun[name]
        if not self.learned:
            return weight, bias
        if name in NORMS:
            return weight + self.learned[f"{name}_weight"], bias + self.learned[f"{name}_bias"]
        added = self.learned[f"{name}_left"] @ self.learned[f"{name}_right"]
        return weight + added, bias + self.learned[f"{name}_bias"]

    def _product(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights(name)
        if not self.fast:
            return F.linear(x, weight, bias)
        made: Tensor = F.linear(x.bfloat16(), weight.bfloat16()).to(x.dtype) + bias
        return made

    def _normalised(self, x: Tensor, norm: str) -> Tensor:
        normalised: Tensor = F.layer_norm(x, (x.shape[1],), *self._weights(norm), self.shape.epsilon)
        return normalised


def tune(
    encoder: Bert,
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    fitted: LeanLayers,
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> LayerDifferences:
    """Tunes `fitted` lean layers on sequences of tokens. `pooling` names what of the last hidden states the model's
    answer is made of. With a `checkpoint` an interrupted run goes on where its file left off."""
    torch.manual_seed(recipe.seed)
    teacher = [TorchLayer(encoder, encoder.dense_weights(number)) for number in range(encoder.shape.layers)]
    student = [TorchLayer(encoder, layer.weights, recipe.rank) for layer in fitted]
    learners = nn.ModuleList(student)
    parameters = list(learners.parameters())
    optimiser = torch.optim.Adam(parameters, lr=recipe.rate, betas=(0.9, 0.98))
    about = f"{recipe} {encoder.digest} {[len(tokens) for tokens in sequences]}"
    for step in range(resume(checkpoint, about, learners, optimiser), recipe.steps):
        warm, share = min(1.0, (step + 1) / 30), step / recipe.steps
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * warm * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        random = np.random.default_rng((recipe.seed, step))
        chosen = [sequences[i] for i in random.integers(0, len(sequences), recipe.batch)]
        wanted, made, apart = _run(encoder, teacher, student, pooling, chosen, recipe, random)
        made, wanted = F.normalize(made), F.normalize(wanted)
        cosine = (made * wanted).sum(1).mean()
        loss = 1 - cosine + recipe.pairs * (made @ made.T - wanted @ wanted.T).square().mean() + recipe.layers * apart
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        report(Step(step + 1, recipe.steps, float(cosine.detach())))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            keep(checkpoint, about, step + 1, learners, optimiser)
    return [layer.difference(part.kept) for layer, part in zip(student, fitted, strict=True)]


def _run(
    encoder: Bert,
    teacher: Sequence[TorchLayer],
    student: Sequence[TorchLayer],
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    recipe: TuningRecipe,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """The dense embeddings of sequences, [sequences, size]; those that the student makes, with positions joined at
    random; and how far its layers are from the dense ones, relative to what they give."""
    lengths = [len(tokens) for tokens in sequences]
    x = torch.from_numpy(np.concatenate([encoder.embed(tokens.ids, tokens.types) for tokens in sequences]))
    sizes, count = torch.ones(len(x), dtype=torch.int64), len(student)
    taught = _taught(teacher, x, sizes, lengths)
    wanted = _embeddings(pooling, taught[-1], sizes, lengths)
    joins = random.uniform(0, recipe.joined, len(lengths)) * (random.random(len(lengths)) < 0.75)
    lean = random.random((count, 2)) < (random.uniform(0.3, 1) if random.random() < recipe.mixed else 1)
    lean[random.integers(count)] = True  # there is always something to learn
    apart = torch.zeros(())
    for i, layers in enumerate(zip(teacher, student, strict=True)):
        x = layers[int(lean[i, 0])].attend(x, sizes, lengths)
        if encoder.position_gates and i >= count // 2 - 1:
            thresholds = joins * random.uniform(0.5, 1.5, len(lengths))
            parts = zip(torch.split(x, lengths), torch.split(sizes, lengths), thresholds, strict=True)
            joined = [join(rows, size, float(threshold)) for rows, size, threshold in parts]
            x, sizes = (torch.cat(part) for part in zip(*joined, strict=True))
            lengths = [len(rows) for rows, _ in joined]
        x = layers[int(lean[i, 1])].feed_forward(x)
        if len(x) == len(taught[i]):  # nothing was joined
            apart = apart + (x - taught[i]).square().sum() / taught[i].square().sum()
    return wanted, _embeddings(pooling, x, sizes, lengths), apart / count


@torch.no_grad()
def _taught(teacher: Sequence[TorchLayer], x: Tensor, sizes: Tensor, lengths: list[int]) -> list[Tensor]:
    """What each dense layer gives."""
    taught = []
    for layer in teacher:
        x = layer.feed_forward(layer.attend(x, sizes, lengths))
        taught.append(x)
    return taught


def _embeddings(pooling: Sequence[str], x: Tensor, sizes: Tensor, lengths: list[int]) -> Tensor:
    states = zip(torch.split(x, lengths), torch.split(sizes, lengths), strict=True)
    return torch.stack([_pooled(pooling, rows, size) for rows, size in states])


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
