"""Tuning an encoder of texts for its gates: a short self-distillation on unlabelled texts.

The dense encoder is the teacher. The student is the same encoder whose gates are closed at random, in every text anew:
so many blocks of neurons are kept, those with the greatest predicted saliency, and positions that are nearly alike are
joined. It learns to make the same embeddings all the same. Trained are only small parts (`tuned_parts`); the predictors
are fitted beforehand, by ridge regression on what the blocks of the dense encoder really add.

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
from models.model import GateContext
from models.zoo.bert import DENSE, Bert
from models.zoo.block_fitting import Fitted, fit_blocks
from models.zoo.text_reader import Tokens
from models.zoo.tuned_parts import BLOCK, MATRICES, TunedLayer, TunedParts

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """`rate` is the peak of a cosine schedule over `steps` of `batch` texts. The share of blocks kept is drawn between
    `least` and `most` for each text, and in each layer ± `jitter` around it; the threshold for joining positions up to
    `joined`, in the later half of the layers. `pairs` weighs how alike the texts of a batch are to each other.
    The predictors are fitted on `fitted_on` texts; a checkpoint is written `every` so many steps."""

    steps: int = 1500
    batch: int = 16
    rank: int = 16
    rate: float = 1e-3
    least: float = 0.3
    most: float = 0.8
    jitter: float = 0.15
    joined: float = 0.3
    pairs: float = 1.0
    fitted_on: int = 400
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
    """One layer with its trainable parts; the dense weights are constants, the neurons in the order of the blocks. It
    takes the positions of several texts, one after the other, x [m, hidden]; `lengths` says how many are each text's.
    """

    def __init__(self, encoder: Bert, number: int, fitted: Fitted, rank: int) -> None:
        super().__init__()
        dense = encoder.dense_weights(number)
        order = torch.from_numpy(fitted.order)
        matrices = [torch.from_numpy(dense[name][0].copy()) for name in MATRICES]
        biases = [torch.from_numpy(dense[name][1].copy()) for name in MATRICES]
        matrices[2], biases[2], matrices[3] = matrices[2][order], biases[2][order], matrices[3][:, order]
        widths = [matrix.shape[1] for matrix in matrices]
        self.fitted = fitted
        # Constants: bf16 is near enough to learn by, and several times as fast where the processor has it.
        fast = kernels.instruction_set("bf16") in ("amx", "avx512")
        self.matrices = [matrix.to(torch.bfloat16) if fast else matrix for matrix in matrices]
        self.biases = nn.ParameterList(biases)
        self.left = nn.ParameterList(torch.zeros(len(matrix), rank) for matrix in matrices)
        self.right = nn.ParameterList(torch.randn(rank, width) / width**0.5 for width in widths)
        self.skipped = nn.Parameter(torch.from_numpy(fitted.skipped.copy()))
        self.attention_norm, self.norm = (
            nn.Parameter(torch.from_numpy(np.stack(dense[name]))) for name in ("attention_norm", "norm")
        )
        self.predictor, self.offset = torch.from_numpy(fitted.predictor), torch.from_numpy(fitted.offset)
        self.heads, self.epsilon = encoder.shape.heads, encoder.shape.epsilon

    def attend(self, x: Tensor, sizes: Tensor, lengths: list[int]) -> Tensor:
        """The first half; each row of x stands for `sizes` positions."""
        mixed = []
        for qkv, size in zip(torch.split(self._product(x, 0), lengths), torch.split(sizes, lengths), strict=True):
            queries, keys, values = qkv.chunk(3, dim=1)
            keys, values = (part.repeat_interleave(size, 0) for part in (keys, values))
            q, k, v = (
                part.reshape(len(part), self.heads, -1).transpose(0, 1)[None] for part in (queries, keys, values)
            )
            mixed.append(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))
        return self._normalised(x + self._product(torch.cat(mixed), 1), self.attention_norm)

    def feed_forward(self, x: Tensor, lengths: list[int], kept: Sequence[int]) -> Tensor:
        """The second half, of each text with the `kept` blocks of the greatest predicted saliency."""
        with torch.no_grad():
            active = torch.zeros(len(lengths), len(self.offset))
            for row, part, count in zip(active, torch.split(x, lengths), kept, strict=True):
                seen = torch.cat([part.mean(0), part.square().mean(0).sqrt()])
                row[(self.predictor @ seen + self.offset).topk(count).indices] = 1.0
            active = active.repeat_interleave(torch.tensor(lengths), 0)
            neurons = active.repeat_interleave(BLOCK, 1)[:, : len(self.biases[2])]
        h = F.gelu(self._product(x, 2)) * neurons
        return self._normalised(x + self._product(h, 3) + (1 - active) @ self.skipped, self.norm)

    def parts(self) -> TunedLayer:
        """What is kept of it."""

        def array(values: Tensor) -> Array:
            return values.detach().numpy().astype(np.float32)

        pairs = tuple((array(left), array(right)) for left, right in zip(self.left, self.right, strict=True))
        return TunedLayer(
            self.fitted.order,
            self.fitted.predictor,
            self.fitted.offset,
            array(self.skipped),
            pairs,
            tuple(array(bias) for bias in self.biases),
            array(self.attention_norm),
            array(self.norm),
        )

    def _product(self, x: Tensor, matrix: int) -> Tensor:
        dense = F.linear(x.to(self.matrices[matrix].dtype), self.matrices[matrix]).to(x.dtype)
        return dense + F.linear(F.linear(x, self.right[matrix]), self.left[matrix], self.biases[matrix])

    def _normalised(self, x: Tensor, norm: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[1],), norm[0], norm[1], self.epsilon)


def tune(
    encoder: Bert,
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    recipe: TuningRecipe,
    report: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> TunedParts:
    """Tunes on sequences of tokens. `pooling` names what of the last hidden states the model's answer is made of. With
    a `checkpoint` an interrupted run goes on where its file left off."""
    torch.manual_seed(recipe.seed)
    teacher = []
    for number, tokens in enumerate(sequences):
        encoded = encoder(tokens.ids, GateContext(0.0), DENSE, types=tokens.types)
        teacher.append(_pooled(pooling, torch.from_numpy(encoded.states), torch.from_numpy(encoded.sizes)))
        report(Step("dense", number + 1, len(sequences)))
    fitted = fit_blocks(encoder, sequences[: recipe.fitted_on])
    student = [StudentLayer(encoder, i, one, recipe.rank) for i, one in enumerate(fitted)]
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
        made = _run(encoder, student, pooling, [sequences[i] for i in chosen], recipe, random)
        wanted = torch.stack([teacher[i] for i in chosen])
        made, wanted = F.normalize(made), F.normalize(wanted)
        cosine = (made * wanted).sum(1).mean()
        loss = 1 - cosine + recipe.pairs * (made @ made.T - wanted @ wanted.T).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        report(Step("tuning", step + 1, recipe.steps, float(cosine.detach())))
        if checkpoint is not None and ((step + 1) % recipe.every == 0 or step + 1 == recipe.steps):
            _keep(checkpoint, about, step + 1, student, optimiser)
    return [layer.parts() for layer in student]


def _run(
    encoder: Bert,
    student: Sequence[StudentLayer],
    pooling: Sequence[str],
    sequences: Sequence[Tokens],
    recipe: TuningRecipe,
    random: np.random.Generator,
) -> Tensor:
    """The embeddings that the student makes of sequences, each with gates closed at random: [sequences, size]."""
    lengths = [len(tokens) for tokens in sequences]
    x = torch.from_numpy(np.concatenate([encoder.embed(tokens.ids, tokens.types) for tokens in sequences]))
    sizes = torch.ones(len(x), dtype=torch.int64)
    shares = random.uniform(recipe.least, recipe.most, len(lengths))
    joins = random.uniform(0, recipe.joined, len(lengths)) * (random.random(len(lengths)) < 0.75)
    for i, layer in enumerate(student):
        x = layer.attend(x, sizes, lengths)
        if encoder.position_gates and i >= len(student) // 2 - 1:
            thresholds = joins * random.uniform(0.5, 1.5, len(lengths))
            parts = zip(torch.split(x, lengths), torch.split(sizes, lengths), thresholds, strict=True)
            joined = [join(rows, size, float(threshold)) for rows, size, threshold in parts]
            x, sizes = (torch.cat(part) for part in zip(*joined, strict=True))
            lengths = [len(rows) for rows, _ in joined]
        blocks = len(layer.offset)
        jittered = shares + random.uniform(-recipe.jitter, recipe.jitter, len(lengths))
        kept = [int(count) for count in np.clip(np.round(jittered * blocks), 1, blocks)]
        x = layer.feed_forward(x, lengths, kept)
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
