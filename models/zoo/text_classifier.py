"""Sequence classification and reranking as they are served: UTF-8 texts, or pairs of them, in; probabilities or scores
out."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import Profile
from models.model import GateContext, TensorSpec
from models.zoo.bert import Bert
from models.zoo.lean_layers import LeanLayers
from models.zoo.sentence_folder import read_token_limit
from models.zoo.text_head import read_head, sigmoid
from models.zoo.text_inputs import MAX_TEXTS, REMEMBERED_LEVELS, SECOND, TEXT, check_texts, read_texts, stacked
from models.zoo.text_profile import checked_profile
from models.zoo.text_reader import TextReader, Tokens


class TextClassifier:
    """Implements `models.zoo.text_inputs.TextModel`. Inputs `text`, bytes [n] (UTF-8), and for pairs `text_pair`, as
    many.

    Outputs of one class: `score`, float32 [n]. Of several: `probabilities`, float32 [n, classes], and `label` [n] where
    one of them is right; `scores` [n, classes] where they are numbers.
    """

    version = "1"
    platform = "sluice_gated"
    max_batch = MAX_TEXTS
    inputs = (TEXT, SECOND)
    pooling = ("cls",)

    def __init__(
        self,
        name: str,
        folder: Path,
        profile: Profile | None = None,
        lean: LeanLayers | None = None,
        datatype: str = "fp32",
        report: Callable[[float], None] = lambda done: None,
    ) -> None:
        """Reads a Hugging Face folder; without a profile the model is dense, and without `lean` layers it has
        no gates on channels. `report` is called with the share done, 0 to 1.

        Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, or `ValueError` for files of
        another architecture."""
        self.name = name
        self.folder = folder
        self.encoder = Bert(folder, lean, datatype, report)
        self.profile = checked_profile(name, profile, self.encoder.digest, self.encoder.gates)
        self._head = read_head(folder)
        self.outputs = _outputs(self._head.labels, self._head.kind)
        limit = read_token_limit(folder)
        shape = self.encoder.shape
        self.max_tokens = min(shape.positions, limit or shape.positions)
        self._reader = TextReader(folder, self.max_tokens, shape.vocabulary)
        self._thresholds = lru_cache(REMEMBERED_LEVELS)(lambda level: self.profile.at(level).thresholds)

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        check_texts(self.name, inputs, self.inputs)

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        return sum(self.encoder.shape.macs(len(tokens)) + self._head.macs for tokens in self.read(inputs))

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        thresholds = self._thresholds(context.level)
        return stacked([self.answer(tokens, context, thresholds) for tokens in self.read(inputs)])

    def read(self, inputs: Mapping[str, NDArray[Any]]) -> list[Tokens]:
        return read_texts(self._reader, inputs)

    def answer(self, tokens: Tokens, context: GateContext, thresholds: Mapping[str, float]) -> dict[str, NDArray[Any]]:
        context.check_wanted()
        encoded = self.encoder(tokens.ids, context, thresholds, types=tokens.types)
        context.macs += self._head.macs
        # The first position is never joined with others.
        values = self._head.outputs(self._head.logits(encoded.states[0]))
        name = self.outputs[0].name
        if name == "score":
            return {name: values}
        answer: dict[str, NDArray[Any]] = {name: values[None]}
        return answer | {"label": values.argmax(0, keepdims=True)} if len(self.outputs) > 1 else answer

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """1 − the distance of the two distributions (total variation), the mean over the texts: how often both would
        draw the same answer. Of classes that stand alone, and of scores, the farthest counts; numbers are taken as
        logits."""
        name = self.outputs[0].name
        one, other = (found[name].reshape(len(found[name]), -1) for found in (outputs, dense))
        if self._head.kind == "numbers":
            one, other = sigmoid(one), sigmoid(other)
        apart = np.abs(one - other)
        distances = apart.sum(1) / 2 if self._head.kind == "one" else apart.max(1)
        return float(np.clip(1 - distances, 0, 1).mean())


def _outputs(labels: tuple[str, ...], kind: str) -> tuple[TensorSpec, ...]:
    if len(labels) == 1:
        return (TensorSpec("score", "FP32", (-1,)),)
    if kind == "numbers":
        return (TensorSpec("scores", "FP32", (-1, len(labels)), labels),)
    probabilities = TensorSpec("probabilities", "FP32", (-1, len(labels)), labels)
    return (probabilities, TensorSpec("label", "INT64", (-1,))) if kind == "one" else (probabilities,)
