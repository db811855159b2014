"""The gate on the words of a vocabulary: which of them may be the next.

The last product of a small decoder, its states with every word, is most of a step's work, and all but a few of its
results are far below the greatest. A preview in few dimensions tells which few: those in which the states that were
seen in calibration and the words together vary most (SVD-softmax, Shim et al. 2017, weighted by the states). The logits
of those words alone are computed then, and of the likeliest thousand where the preview is flat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models import kernels
from models.zoo.text_profile import OtherWeights
from models.zoo.whisper_heads import CalibratedHeads, Channels

Array = NDArray[np.float32]

PREVIEW = 96
"""Dimensions of the preview."""

MOST = 1024
"""Words that are compared exactly, at most. Where nothing is likely, half of the vocabulary may be as likely as the
threshold asks; what is next is far ahead of most of it."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What gates need that calibration found: the means of all layers' neurons, the encoder's first, and the preview's
    `project` and `lift`, both [hidden, dimensions]: a state h and a word w have the logit (h · project) · (w · lift),
    about. `heads` are those of all attentions, in the order of `attentions_of`; none in calibrations from before there
    was a gate on them. `silence` [hidden], where it was tuned, is added to a position that stands for many."""

    means: Sequence[NDArray[np.float32]]
    project: Array
    lift: Array
    heads: Sequence[CalibratedHeads] = ()
    silence: Array | None = None

    def save(self, path: Path) -> None:
        """Writes safetensors, all of them or nothing."""
        partial = path.with_suffix(".partial")
        arrays = {f"layer{i + 1}": layer for i, layer in enumerate(self.means)}
        for i, heads in enumerate(self.heads):
            arrays |= {f"heads{i + 1}.means": heads.means, f"heads{i + 1}.saliency": heads.saliency}
        if self.silence is not None:
            arrays["silence"] = self.silence
        save_file(arrays | {"project": self.project, "lift": self.lift}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `FileNotFoundError`, or `OtherWeights` for another file."""
        try:
            arrays = load_file(path)
            means = [arrays[f"layer{i + 1}"] for i in range(sum(name.startswith("layer") for name in arrays))]
            attentions = sum(name.endswith(".saliency") for name in arrays)
            heads = [
                CalibratedHeads(arrays[f"heads{i + 1}.means"], arrays[f"heads{i + 1}.saliency"])
                for i in range(attentions)
            ]
            return cls(means, arrays["project"], arrays["lift"], heads, arrays.get("silence"))
        except KeyError as missing:
            raise OtherWeights(f"{path} has no tensor {missing}") from None
        except SafetensorError as error:
            raise OtherWeights(f"{path} has no calibration: {error}") from None


@dataclass(frozen=True, slots=True)
class NextWords:
    """Words that may be next, their `logits` [n] and `ids` [n], None for all of the vocabulary."""

    ids: Channels | None
    logits: Array

    def likeliest(self) -> tuple[int, float]:
        """The id of the likeliest, and the logarithm of its probability."""
        best = int(self.logits.argmax())
        return best if self.ids is None else int(self.ids[best]), float(self.logits[best]) - log_sum(self.logits)


@dataclass(frozen=True, slots=True)
class WordGate:
    """The `words` [vocabulary, hidden], and their preview, packed. A preview is in int8: it only has to tell likely
    words from others, and reading it is what it takes."""

    words: kernels.RowMatrix
    project: Array
    preview: kernels.RowMatrix

    @classmethod
    def of(cls, words: Array, project: Array, lift: Array, datatype: str) -> Self:
        """Raises `ValueError` for a preview of another model's."""
        if project.shape != lift.shape or project.shape[:1] != words.shape[1:]:
            raise ValueError(f"the preview must be [{words.shape[1]}, n] twice, got {project.shape} and {lift.shape}")
        preview = kernels.pack_rows(np.ascontiguousarray(words @ lift), "int8", "inputs")
        return cls(kernels.pack_rows(words, datatype, "outputs"), project, preview)

    def __call__(self, state: Array, possible: Array, threshold: float) -> NextWords:
        """The words that may follow a state [1, hidden]: those whose preview makes them likelier than the threshold
        times the likeliest, the `MOST` likeliest of them. `possible` is added, −∞ for words that cannot be next."""
        ids, logits = kernels.likely_words(
            state,
            state @ self.project,
            self.preview,
            self.words,
            possible=possible,
            threshold=threshold,
            most=MOST,
        )
        return NextWords(ids, logits)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a preview."""
        return self.preview.inputs * (len(self.project) + self.preview.outputs)


def log_sum(logits: NDArray[np.float32]) -> float:
    """log Σ exp, −∞ of none."""
    greatest = logits.max(initial=-np.inf)
    return float(greatest + np.log(np.exp(logits - greatest).sum())) if np.isfinite(greatest) else -np.inf


def preview_of(states: Array, words: Array, dimensions: int = PREVIEW) -> tuple[Array, Array]:
    """`project` and `lift`, of states [n, hidden] that were seen and words [vocabulary, hidden]: the best approximation
    of their logits of that rank, in the mean of squares."""
    hidden = states.shape[1]
    covariance = states.T.astype(np.float64) @ states / len(states)
    # Directions that were not seen are not impossible.
    covariance += np.trace(covariance) / hidden * 1e-3 * np.eye(hidden)
    values, vectors = np.linalg.eigh(covariance)
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    gram = root @ (words.T @ words).astype(np.float64) @ root
    main = np.linalg.eigh(gram)[1][:, ::-1][:, : min(dimensions, hidden)]
    return (inverse @ main).astype(np.float32), (root @ main).astype(np.float32)
