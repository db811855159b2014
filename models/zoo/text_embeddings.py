"""Text embeddings as they are served: UTF-8 texts in, unit vectors out. An embedding is the mean of an encoder's last
hidden states over the tokens, normalised (Sentence-BERT, Reimers and Gurevych 2019)."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.neuron_means import NeuronMeans
from models.gating.profile import Profile
from models.model import GateContext, InvalidInput, TensorSpec
from models.zoo.bert import Bert
from models.zoo.folder import read_json

REMEMBERED_TEXTS = 1024
"""A request is tokenised when it is admitted, to know its work; what was found is kept until it runs."""

REMEMBERED_LEVELS = 256


class TextEmbedder:
    """Implements `models.model.Model`. Input `text`, bytes [n] (UTF-8); output `embedding`, float32 [n, hidden].

    The texts of a request run one after the other: none waits for padding, and each has gates of its own. Tokens past
    `max_tokens` are cut off.
    """

    version = "1"
    platform = "sluice_gated"
    max_batch = 256
    inputs = (TensorSpec("text", "BYTES", (-1,)),)

    def __init__(
        self,
        name: str,
        folder: Path,
        profile: Profile | None = None,
        means: NeuronMeans | None = None,
        datatype: str = "fp32",
    ) -> None:
        """Reads a Hugging Face folder; without a profile the model is dense, without means it has no gates on neurons.

        Raises `FileNotFoundError`,
        `ModuleNotFoundError` without the package tokenizers, or `ValueError` for files of another architecture."""
        from tokenizers import Tokenizer

        self.name = name
        self.folder = folder
        self.encoder = Bert(folder, means, datatype)
        self.profile = profile or Profile.dense(name, self.encoder.digest)
        if self.profile.weights_digest != self.encoder.digest:
            raise ValueError(f"the profile of {name} was measured on other weights: run sluice calibrate {name}")
        self.outputs = (TensorSpec("embedding", "FP32", (-1, self.encoder.shape.hidden)),)
        self.max_tokens = _max_tokens(folder, self.encoder.shape.positions)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self.tokens = lru_cache(REMEMBERED_TEXTS)(self._tokens)
        self._thresholds = lru_cache(REMEMBERED_LEVELS)(lambda level: self.profile.at(level).thresholds)

    def _tokens(self, text: bytes) -> NDArray[np.int64]:
        return np.array(self._tokenizer.encode(text.decode()).ids, np.int64)

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        for name in inputs:
            if name != "text":
                raise InvalidInput(name, f"model {self.name} has no such input; it takes text")
        if "text" not in inputs:
            raise InvalidInput("text", f"model {self.name} needs this input")
        texts = inputs["text"]
        if texts.dtype != object or texts.ndim != 1:
            raise InvalidInput("text", f"must be BYTES of the shape [n], got {texts.dtype} {list(texts.shape)}")
        if not 1 <= len(texts) <= self.max_batch:
            raise InvalidInput("text", f"a request holds 1 to {self.max_batch} texts, got {len(texts)}")
        for number, text in enumerate(texts):
            if not isinstance(text, bytes):
                raise InvalidInput("text", f"element {number} must be bytes, got {type(text).__name__}")
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise InvalidInput("text", f"element {number} is not UTF-8: {error.reason}") from None

    def dense_macs(self, inputs: Mapping[str, NDArray[Any]]) -> int:
        return sum(self.encoder.shape.macs(len(self.tokens(text))) for text in inputs["text"])

    def run(self, inputs: Mapping[str, NDArray[Any]], context: GateContext) -> dict[str, NDArray[Any]]:
        return {"embedding": np.stack([self.embed(self.tokens(text), context) for text in inputs["text"]])}

    def embed(
        self, ids: NDArray[np.int64], context: GateContext, thresholds: Mapping[str, float] | None = None
    ) -> NDArray[np.float32]:
        """The embedding [hidden] of a sequence of token ids [n], at the context's level, or at given thresholds."""
        if thresholds is None:
            thresholds = self._thresholds(context.level)
        mean = self.encoder(ids, context, thresholds).mean
        embedding: NDArray[np.float32] = mean / np.linalg.norm(mean)
        return embedding

    def agreement(self, outputs: Mapping[str, NDArray[Any]], dense: Mapping[str, NDArray[Any]]) -> float:
        """The mean cosine over the texts, 0 where it is negative."""
        cosines = (outputs["embedding"] * dense["embedding"]).sum(1)
        return float(np.clip(cosines, 0, 1).mean())


def _max_tokens(folder: Path, positions: int) -> int:
    """What the sentence-transformers folder says, else as many as there are positions."""
    settings = folder / "sentence_bert_config.json"
    return min(positions, read_json(settings).get("max_seq_length", positions) if settings.exists() else positions)
