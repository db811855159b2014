"""What `sluice bench model` times: for each size and datatype the inputs, our model dense and at its levels, and the
other engines on the same inputs."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks import model_engines
from models.model import GateContext
from models.zoo import catalog, fashion, fashion_data, language_family, speech_family, text_data, text_family
from models.zoo.fashion import FashionClassifier
from models.zoo.fashion_family import fashion_files
from models.zoo.fashion_weights import PACKAGED, Files, load_calibration, load_weights
from models.zoo.text_embeddings import TextEmbedder

ENGINES = ("torch", "ort", "openvino", "llama-cpp")
DATATYPES = {
    "sluice": ("fp32", "bf16", "int8"),
    "torch": ("fp32", "bf16"),
    "ort": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
    "llama-cpp": (),  # of language models alone
}
"""What each of them can do."""

log = logging.getLogger(__name__)

INPUTS, IMAGES = 8, 32
"""Different inputs of a size: what is skipped depends on them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A contender. `macs_ratio` tells the share of the dense multiply-accumulates that its calls so far did."""

    name: str
    call: Callable[[NDArray[Any]], NDArray[Any]]
    level: float | None = None
    macs_ratio: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """`wanted` are our dense fp32 outputs; the first run is our dense model. `number` is the size as it was asked
    for, `rate` what is counted in a second, one to a call, where that is of interest. Where the outputs are `ranked`,
    how alike each two of them are is compared by rank."""

    size: str
    number: int
    datatype: str
    macs: int
    inputs: list[NDArray[Any]]
    wanted: list[NDArray[Any]]
    runs: list[Run]
    rate: str = ""
    ranked: bool = False


class Level:
    """A model at a level, and the work of all of its calls."""

    def __init__(self, call: Callable[[NDArray[Any], GateContext], NDArray[Any]], level: float) -> None:
        self._call = call
        self._level = level
        self._macs = self._skipped = 0

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        context = GateContext(self._level)
        output = self._call(x, context)
        self._macs += context.macs
        self._skipped += context.macs_skipped
        return output

    def macs_ratio(self) -> float:
        return 1 - self._skipped / self._macs


def cases_of(
    model: str,
    engines: Sequence[str],
    datatypes: Sequence[str],
    sizes: Sequence[int],
    levels: Sequence[float],
    checked: bool = True,
) -> Iterator[Case]:
    """The cases of a model, one after the other; `sizes` are tokens, for texts, and behind them come documents where
    they are installed. Not `checked`, they lack the outputs to compare with, and whatever else is there to check.

    Raises `catalog.UnknownModel` and `catalog.MissingWeights`, `ModuleNotFoundError` for an engine that is not there,
    `ValueError` for one that is unknown.
    """
    for kind, names, known in (("engine", engines, ENGINES), ("datatype", datatypes, DATATYPES["sluice"])):
        for name in names:
            if name not in known:
                raise ValueError(f"there is no {kind} {name!r}; there are: {', '.join(known)}")
    if model == "fashion":
        if "int8" in datatypes:
            raise ValueError("the image network has no int8; it has fp32 and bf16")
        return _images(engines, datatypes, levels, checked)
    if model == "minilm":
        return _texts(engines, datatypes, sizes, levels, checked)
    if language_family.recognises(model):
        from loadtest.benchmarks.language_cases import language_cases

        return language_cases(model, engines, datatypes, sizes, levels, checked)
    if speech_family.recognises(model):
        from loadtest.benchmarks.speech_cases import speech_cases  # which is made of what is defined here

        return speech_cases(model, engines, datatypes, sizes, levels, checked)
    raise catalog.UnknownModel(
        f"{model!r} cannot be compared; fashion, minilm, models of speech and language models can"
    )


def _texts(
    engines: Sequence[str], datatypes: Sequence[str], sizes: Sequence[int], levels: Sequence[float], checked: bool
) -> Iterator[Case]:
    exact = _minilm("fp32") if checked else None
    for datatype in datatypes:
        model = _minilm(datatype)
        for tokens in sizes:
            yield _text_case(model, exact, engines, datatype, tokens, levels)
        if exact:
            try:
                yield _documents(model, exact, datatype, levels)
            except text_data.MissingData as error:
                log.warning("documents are left out: %s", error)


def _text_case(
    model: TextEmbedder,
    exact: TextEmbedder | None,
    engines: Sequence[str],
    datatype: str,
    tokens: int,
    levels: Sequence[float],
) -> Case:
    def embed(ids: NDArray[Any], context: GateContext) -> NDArray[np.float32]:
        return model.embed(ids[0], context)

    def dense(ids: NDArray[Any]) -> NDArray[np.float32]:
        return embed(ids, GateContext(0.0))

    inputs = token_sequences(model, tokens)
    peers = [
        Run(engine, _text_engine(engine, model.folder, tokens, datatype))
        for engine in engines
        if datatype in DATATYPES[engine]
    ]
    wanted = [exact.embed(ids[0], GateContext(0.0)) for ids in inputs] if exact else []
    macs = model.encoder.shape.macs(tokens)
    runs = [Run("sluice", dense), *peers, *_levels(embed, levels)]
    return Case(f"{tokens} tokens", tokens, datatype, macs, inputs, wanted, runs)


def _documents(model: TextEmbedder, exact: TextEmbedder, datatype: str, levels: Sequence[float]) -> Case:
    """News documents that no profile has seen, of 53 to 154 tokens: other engines have a graph for each length."""

    def embed(ids: NDArray[Any], context: GateContext) -> NDArray[np.float32]:
        return model.embed(ids[0], context)

    inputs = [model.tokens(text.encode())[None] for text in text_data.lee().texts]
    macs = round(float(np.mean([model.encoder.shape.macs(ids.size) for ids in inputs])))
    wanted = [exact.embed(ids[0], GateContext(0.0)) for ids in inputs]
    runs = [Run("sluice", lambda ids: embed(ids, GateContext(0.0))), *_levels(embed, levels)]
    return Case(f"{len(inputs)} documents", 0, datatype, macs, inputs, wanted, runs, ranked=True)


def token_sequences(model: TextEmbedder, tokens: int) -> list[NDArray[np.int64]]:
    """Real sentences, run together and cut to length: [1, tokens] each."""
    if not 3 <= tokens <= model.max_tokens:
        raise ValueError(f"a size is 3 to {model.max_tokens} tokens, got {tokens}")
    sentences = text_data.sample()
    sequences = []
    for i in range(INPUTS):
        start = i * len(sentences) // INPUTS
        ids = model.tokens(" ".join(sentences[start : start + 40]).encode())
        sequences.append(np.append(ids[: tokens - 1], ids[-1])[None])
    return sequences


def _text_engine(engine: str, folder: Path, tokens: int, datatype: str) -> model_engines.Engine:
    if engine == "torch":
        return model_engines.torch_bert(folder, datatype)
    from loadtest.benchmarks.model_graphs import bert_graph, checked

    if engine == "ort":
        return model_engines.onnx_runtime(checked(bert_graph(folder, tokens, fused=True)), datatype)
    return model_engines.openvino(checked(bert_graph(folder, tokens, fused=False)), datatype)


def _minilm(datatype: str) -> TextEmbedder:
    model = text_family.load(f"minilm:{datatype}")
    assert isinstance(model, TextEmbedder)
    return model


def _images(engines: Sequence[str], datatypes: Sequence[str], levels: Sequence[float], checked: bool) -> Iterator[Case]:
    files, images = Files.named(PACKAGED, "fashion-plain"), fashion_data.sample().images[:IMAGES]
    exact = fashion.load(files, "plain")
    inputs = [image[None] for image in images]
    wanted = [exact.logits(image, GateContext(0.0)) for image in inputs] if checked else []
    for datatype in datatypes:
        plain = fashion.load(files, "plain", datatype)
        gated = fashion.load(fashion_files(), datatype=datatype)
        yield Case(
            "an image",
            1,
            datatype,
            exact.dense_macs({"image": inputs[0]}),
            inputs,
            wanted,
            [_dense_images(plain), *_image_peers(engines, files, datatype, plain), *_levels(gated.logits, levels)],
        )


def _dense_images(plain: FashionClassifier) -> Run:
    return Run("sluice", lambda image: plain.logits(image, GateContext(0.0)))


def _image_peers(engines: Sequence[str], files: Files, datatype: str, plain: FashionClassifier) -> list[Run]:
    able = [engine for engine in engines if datatype in DATATYPES[engine]]
    return [Run(engine, _image_engine(engine, files, datatype, plain)) for engine in able]


def _image_engine(engine: str, files: Files, datatype: str, plain: FashionClassifier) -> model_engines.Engine:
    weights, calibration = load_weights(files.weights), load_calibration(files.calibration)
    if engine == "torch":
        run = model_engines.torch_fashion(weights, calibration, datatype)
    else:
        from loadtest.benchmarks.model_graphs import checked, fashion_graph

        make = model_engines.onnx_runtime if engine == "ort" else model_engines.openvino
        run = make(checked(fashion_graph(weights, calibration)), datatype)
    return lambda image: run(plain.pixels(image)[:, None])


def _levels(call: Callable[[NDArray[Any], GateContext], NDArray[Any]], levels: Sequence[float]) -> list[Run]:
    gated = [Level(call, level) for level in levels]
    return [Run(f"level {level:g}", run, level, run.macs_ratio) for level, run in zip(levels, gated, strict=True)]
