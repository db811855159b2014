"""The head of a sequence classifier: what is made of the first token's last hidden state, and what its numbers mean.

What `config.json` says decides: `id2label` names the classes, `problem_type` tells whether one of them is right
(softmax), each on its own (sigmoid), or whether they are numbers (regression). A single class is a score: of one text,
or of a pair, as a cross-encoder's are (Nogueira and Cho 2019).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.zoo.bert_shape import NAMINGS
from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.sentence_folder import SENTENCE_CONFIG, Step, affine

Array = NDArray[np.float32]
Kind = Literal["one", "several", "numbers"]
"""Of the classes: one is right, each may be, or they are no classes but numbers."""


@dataclass(frozen=True, slots=True)
class ClassifierHead:
    """`logits` makes of a hidden state [hidden] one number for each of `labels`; `outputs` gives them their meaning."""

    labels: tuple[str, ...]
    kind: Kind
    logits: Callable[[Array], Array]
    macs: int

    def outputs(self, logits: Array) -> Array:
        """Probabilities, or numbers as they are, of logits [n, labels]."""
        if self.kind == "numbers":
            return logits
        return softmax(logits) if self.kind == "one" else sigmoid(logits)


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a sequence classifier. Raises `ValueError` for another head."""
    named = config.get("architectures") or [""]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise ValueError(f"config.json: architectures must be a list of names, got {named!r}")
    architecture = named[0]
    if architecture.endswith("ForSequenceClassification"):
        return True
    head = architecture.rpartition("For")[2] if "For" in architecture else ""
    if head in ("TokenClassification", "QuestionAnswering", "MultipleChoice", "NextSentencePrediction"):
        raise ValueError(
            f"config.json: architectures is {architecture!r}; encoders for embeddings and "
            "…ForSequenceClassification can be hosted"
        )
    return False


def read_head(folder: Path) -> ClassifierHead:
    """Raises `FileNotFoundError`, or `ValueError` naming the file and the field."""
    config = read_json(folder / "config.json")
    tensors = Tensors(weights_path(folder), prefix=NAMINGS[config["model_type"]].prefix)
    names = ("classifier.dense", "classifier.out_proj")
    hidden_activation: Step = np.tanh
    if "pre_classifier.weight" in tensors:
        names, hidden_activation = ("pre_classifier", "classifier"), lambda x: np.maximum(x, 0)
    elif "classifier.out_proj.weight" not in tensors:
        names = ("pooler.dense", "classifier")
    first, last = ((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names)
    hidden, final = affine(*first, hidden_activation), affine(*last, lambda x: x)
    labels = _labels(config, folder, len(last[0]))
    kind = _kind(config, folder, len(labels), _activation(config, folder))
    return ClassifierHead(labels, kind, lambda x: final(hidden(x)), first[0].size + last[0].size)


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Array = powers / powers.sum(-1, keepdims=True)
    return shares


def sigmoid(logits: Array) -> Array:
    """Of each number, without overflow."""
    return np.asarray((np.tanh(logits / 2) + 1) / 2, np.float32)


def _labels(config: Mapping[str, Any], folder: Path, outputs: int) -> tuple[str, ...]:
    named = config.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(outputs))
    if not isinstance(named, dict) or not all(str(key).isdecimal() for key in named):
        raise ValueError(f"{folder}/config.json: id2label must be an object whose keys are numbers, got {named!r}")
    labels = tuple(str(label) for _, label in sorted(named.items(), key=lambda item: int(item[0])))
    if len(labels) != outputs:
        raise ValueError(f"{folder}/config.json: id2label has {len(labels)} classes, and the classifier {outputs}")
    return labels


def _activation(config: Mapping[str, Any], folder: Path) -> str:
    """The name of a torch module, where sentence-transformers wrote one; its versions did in three places."""
    path = folder / SENTENCE_CONFIG
    latest = read_json(path).get("activation_fn") if path.exists() else None
    own = config.get("sentence_transformers")
    before = own.get("activation_fn") if isinstance(own, dict) else None
    return str(latest or before or config.get("sbert_ce_default_activation_function") or "")


def _kind(config: Mapping[str, Any], folder: Path, labels: int, activation: str) -> Kind:
    problem = config.get("problem_type")
    if labels == 1:
        return "numbers" if problem == "regression" or activation.endswith("Identity") else "several"
    kinds: dict[str | None, Kind] = {
        None: "one",
        "single_label_classification": "one",
        "multi_label_classification": "several",
        "regression": "numbers",
    }
    if not isinstance(problem, str | None) or problem not in kinds:
        wanted = ", ".join(filter(None, kinds))
        raise ValueError(f"{folder}/config.json: problem_type must be of {wanted}, got {problem!r}")
    return kinds[problem]
