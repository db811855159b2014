"""Text embeddings as they are served: UTF-8 texts in, vectors out. An embedding is what the folder says; most often the
mean of an encoder's last hidden states over the tokens, normalised (Sentence-BERT, Reimers and Gurevych 2019)."""

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
from models.zoo.sentence_folder import normalise, read_sentence_folder
from models.zoo.text_inputs import MAX_TEXTS, REMEMBERED_LEVELS, TEXT, check_texts, read_texts, stacked
from models.zoo.text_profile import checked_profile
from models.zoo.text_reader import TextReader, Tokens


class TextEmbedder:
    """Implements `models.model.Embedder` and `models.zoo.text_inputs.TextModel`. Input `text`, bytes [n] (UTF-8);
    output `embedding`, float32 [n, size]."""

    version = "1"
    platform = "sluice_gated"
    max_batch = MAX_TEXTS
    inputs = (TEXT,)

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
        self._sentence = sentence = read_sentence_folder(folder)
        self.encoder = Bert(sentence.encoder, lean, datatype, report)
        self.profile = checked_profile(name, profile, self.encoder.digest, self.encoder.gates)
        shape = self.encoder.shape
        self.outputs = (TensorSpec("embedding", "FP32", (-1, sentence.size or len(sentence.pooling) * shape.hidden)),)
        self.max_tokens = min(shape.positions, sentence.max_tokens or shape.positions)
        self._reader = TextReader(sentence.encoder, self.max_tokens, shape.vocabulary, sentence.prompt, sentence.lower)
        self._thresholds = lru_cache(REMEMBERED_LEVELS)(lambda level: self.profile.at(level).thresholds)

    @property
    def pooling(self) -> tuple[str, ...]:
        return self._sentence.pooling

    def tokens(self, text: bytes) -> NDArray[np.int64]:
        return self._reader(text).ids

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        check_texts(self.name, inputs, self.inputs)

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        return sum(self.encoder.shape.macs(len(tokens)) for tokens in self.read(inputs))

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        thresholds = self._thresholds(context.level)
        return stacked([self.answer(tokens, context, thresholds) for tokens in self.read(inputs)])

    def read(self, inputs: Mapping[str, NDArray[Any]]) -> list[Tokens]:
        return read_texts(self._reader, inputs)

    def answer(self, tokens: Tokens, context: GateContext, thresholds: Mapping[str, float]) -> dict[str, NDArray[Any]]:
        context.check_wanted()
        return {"embedding": self.embed(tokens.ids, context, thresholds)[None]}

    def embed(
        self, ids: NDArray[np.int64], context: GateContext, thresholds: Mapping[str, float] | None = None
    ) -> NDArray[np.float32]:
        """The embedding [size] of a sequence of token ids [n], at the context's level, or at given thresholds."""
        if thresholds is None:
            thresholds = self._thresholds(context.level)
        return self._sentence.embed(self.encoder(ids, context, thresholds))

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """The mean cosine over the texts, 0 where it is negative."""
        pairs = zip(outputs["embedding"], dense["embedding"], strict=True)
        cosines = [float(normalise(one) @ normalise(other)) for one, other in pairs]
        return float(np.clip(cosines, 0, 1).mean())
