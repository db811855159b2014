"""A layer of an encoder in torch, for tuning: the dense one, or a lean one with low-rank differences to train."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import kernels
from models.zoo.bert import Bert
from models.zoo.lean_differences import LayerDifference, NormDifference, ProductDifference
from models.zoo.lean_layers import NORMS, PRODUCTS, Array, LayerWeights, Neurons


class TorchLayer(nn.Module):
    """One layer with differences of some rank, which are trained; of rank 0, a dense layer, it has none. It takes texts
    of one length, x [texts, n, hidden]; where positions were joined, `sizes` [texts, n] says how many each row stands
    for, and 0 is a row that is none."""

    def __init__(self, encoder: Bert, weights: LayerWeights, rank: int = 0) -> None:
        super().__init__()
        self.shape, self.scale, self.distances = encoder.shape, encoder.shape.head_size**-0.5, encoder.distances
        # Products in bf16 are near enough to learn by, and several times as fast where the processor has it.
        self.datatype = torch.bfloat16 if kernels.instruction_set("bf16") in ("amx", "avx512") else torch.float32
        self.begun = {
            name: (torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(bias)))
            for name, (weight, bias) in weights.items()
        }
        # Rounded once, and not in every step.
        self.begun |= {name: (self.begun[name][0].to(self.datatype), self.begun[name][1]) for name in PRODUCTS}
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

    @torch.no_grad()
    def begin(self, difference: LayerDifference) -> None:
        """With what was learned before, of ranks that are not more: the others are added to it. Raises `ValueError`."""
        learned = {f"{name}_bias": one.bias for name, one in difference.products.items()}
        for name, norm in difference.norms.items():
            learned |= {f"{name}_weight": norm.weight, f"{name}_bias": norm.bias}
        for name, one in difference.products.items():
            left, right = self.learned[f"{name}_left"], self.learned[f"{name}_right"]
            ranks = len(one.right)
            if ranks > len(right) or (len(left), right.shape[1]) != (len(one.left), one.right.shape[1]):
                raise ValueError(f"what was learned of {name} has {ranks} ranks or another size, of {len(right)} here")
            left[:, :ranks] = torch.from_numpy(np.array(one.left))
            right[:ranks] = torch.from_numpy(np.array(one.right))
        for name, value in learned.items():
            self.learned[name].copy_(torch.from_numpy(np.array(value)))

    def attend(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The first half."""
        texts, n, hidden = x.shape
        widths = [len(self.begun[name][0]) for name in ("query", "key", "value")]
        parts = torch.split(self._product(x, "query", "key", "value"), widths, 2)
        q, k, v = (part.reshape(texts, n, self.shape.heads, -1).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(2, 3)).float() * self.scale
        bias = self.distances(n)
        if bias is not None:
            scores = scores + torch.from_numpy(bias)
        if sizes is not None:
            scores = scores + sizes.log()[:, None, None]
        heads = scores.softmax(3).to(v.dtype) @ v
        added = self._product(heads.transpose(1, 2).reshape(texts, n, hidden), "output")
        return self._normalised(x + added.float(), "attention_norm")

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half."""
        return self._normalised(x + self._product(F.gelu(self._product(x, "up")), "down").float(), "norm")

    def difference(self, kept: Neurons) -> LayerDifference:
        """What it learned, of products that were ever trained, with the neurons that it has."""

        def array(name: str) -> Array:
            learned: Array = self.learned[name].detach().numpy().copy()
            return learned

        products = {
            name: ProductDifference(array(f"{name}_left"), array(f"{name}_right"), array(f"{name}_bias"))
            for name in PRODUCTS
            if self.learned[f"{name}_left"].any()
        }
        norms = {name: NormDifference(array(f"{name}_weight"), array(f"{name}_bias")) for name in NORMS}
        return LayerDifference(products, norms, kept)

    def _product(self, x: Tensor, *names: str) -> Tensor:
        weight, bias = (torch.cat(parts) for parts in zip(*(self.begun[name] for name in names), strict=True))
        x = x.to(self.datatype)
        if not self.learned:
            return F.linear(x, weight, bias.to(self.datatype))
        bias = bias + torch.cat([self.learned[f"{name}_bias"] for name in names])
        # Differences are products of their own: added to the weight first, they would need the whole weight's gradient.
        rights = [self.learned[f"{name}_right"] for name in names]
        parts = torch.split(F.linear(x, torch.cat(rights).to(self.datatype)), [len(right) for right in rights], -1)
        lefts = (self.learned[f"{name}_left"].to(self.datatype) for name in names)
        added = torch.cat([F.linear(part, left) for part, left in zip(parts, lefts, strict=True)], -1)
        return F.linear(x, weight, bias.to(self.datatype)) + added

    def _normalised(self, x: Tensor, norm: str) -> Tensor:
        weight, bias = self.begun[norm]
        if self.learned:
            weight, bias = weight + self.learned[f"{norm}_weight"], bias + self.learned[f"{norm}_bias"]
        normalised: Tensor = F.layer_norm(x, (x.shape[-1],), weight, bias, self.shape.epsilon)
        return normalised


def join(x: Tensor, sizes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """`kernels.merge_positions` of several texts, x [texts, n, hidden], with a gradient through the means. Texts of
    which more is joined get rows of size 0 behind the others."""
    with torch.no_grad():
        there = sizes > 0
        into = torch.arange(x.shape[1]).repeat(len(x), 1)
        for text, count in enumerate(there.sum(1).tolist()):
            into[text, :count] = torch.from_numpy(kernels.match_positions(x[text, :count].numpy(), threshold))
        kept = there & (into == torch.arange(x.shape[1]))
        order = torch.argsort(~kept, dim=1, stable=True)[:, : int(kept.sum(1).max())]
        total = torch.zeros_like(sizes).scatter_add(1, into, sizes)
    means = torch.zeros_like(x).scatter_add(1, into[..., None].expand_as(x), x * sizes[..., None])
    means = means / total.clamp_min(1)[..., None]
    sizes = torch.where(kept, total, 0).gather(1, order)
    return means.gather(1, order[..., None].expand(-1, -1, x.shape[2])), sizes
