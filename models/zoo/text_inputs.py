"""What models of texts have in common: their inputs, and what calibration asks of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext, InvalidInput, Model, Tensors, TensorSpec
from models.zoo.bert import Bert
from models.zoo.text_reader import TextReader, Tokens

TEXT = TensorSpec("text", "BYTES", (-1,))
SECOND = TensorSpec("text_pair", "BYTES", (-1,), optional=True)
MAX_TEXTS = 2048
"""Of a request: as many as OpenAI's API takes."""

REMEMBERED_LEVELS = 256


class TextModel(Model, Protocol):
    """A model of texts that runs one after the other, so that none waits for padding and each has gates of its own."""

    @property
    def folder(self) -> Path: ...
    @property
    def encoder(self) -> Bert: ...
    @property
    def pooling(self) -> tuple[str, ...]:
        """What of the last hidden states its answers are made of, by the names in `sentence_folder.POOLINGS`."""

    def read(self, inputs: Tensors) -> list[Tokens]:
        """The tokens of each text of checked inputs."""

    def answer(self, tokens: Tokens, context: GateContext, thresholds: Mapping[str, float]) -> dict[str, NDArray[Any]]:
        """The outputs for one text, at given thresholds."""


def check_texts(model: str, inputs: Mapping[str, NDArray[Any]], takes: tuple[TensorSpec, ...]) -> None:
    """Raises `InvalidInput` unless these are so many texts of UTF-8 each, those that are not optional among them."""
    names = [spec.name for spec in takes]
    for name in inputs:
        if name not in names:
            raise InvalidInput(name, f"model {model} has no such input; it takes {', '.join(names)}")
    for spec in takes:
        if spec.name in inputs:
            _check(spec.name, inputs[spec.name])
        elif not spec.optional:
            raise InvalidInput(spec.name, f"model {model} needs this input")
    lengths = [len(texts) for texts in inputs.values()]
    if len(set(lengths)) > 1:
        raise InvalidInput(names[1], f"must have as many texts as {names[0]}: {lengths}")


def read_texts(reader: TextReader, inputs: Mapping[str, NDArray[Any]]) -> list[Tokens]:
    """The tokens of each text, or pair, of checked inputs."""
    texts, seconds = inputs[TEXT.name], inputs.get(SECOND.name)
    if seconds is None:
        return [reader(text) for text in texts]
    return [reader(text, second) for text, second in zip(texts, seconds, strict=True)]


def stacked(rows: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The outputs of a request's texts, one after the other."""
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def request_of(line: str, model: Model) -> dict[str, NDArray[Any]]:
    """A request with the text of a line; with two of them, where the model takes pairs and a tab is between."""
    text, tab, second = line.partition("\t")
    if tab and any(spec.name == SECOND.name for spec in model.inputs):
        return {TEXT.name: np.array([text.encode()], object), SECOND.name: np.array([second.encode()], object)}
    return {TEXT.name: np.array([line.encode()], object)}


def _check(name: str, texts: NDArray[Any]) -> None:
    if texts.dtype != object or texts.ndim != 1:
        raise InvalidInput(name, f"must be BYTES of the shape [n], got {texts.dtype} {list(texts.shape)}")
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidInput(name, f"a request holds 1 to {MAX_TEXTS} texts, got {len(texts)}")
    for number, text in enumerate(texts):
        if not isinstance(text, bytes):
            raise InvalidInput(name, f"element {number} must be bytes, got {type(text).__name__}")
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(name, f"element {number} is not UTF-8: {error.reason}") from None
