"""What `sluice bench model` times of a language model: a step of a generation behind texts of some length, dense and at
our levels, beside other engines on the same texts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.benchmarks import language_engines
from loadtest.benchmarks.model_cases import Case, Level, Run
from loadtest.benchmarks.model_engines import Engine
from models.model import GateContext
from models.zoo import language_family, text_data
from models.zoo.family import MissingWeights, default_home
from models.zoo.language_gates import windows
from models.zoo.language_model import Generation, LanguageModel

ENGINES = ("torch", "llama-cpp")

TEXTS = 32
"""Different texts of a size: single tokens differ more in what they need than texts do."""


def language_cases(
    name: str,
    engines: Sequence[str],
    datatypes: Sequence[str],
    sizes: Sequence[int],
    levels: Sequence[float],
    checked: bool,
) -> Iterator[Case]:
    """A case for each datatype and number of tokens. Raises as `model_cases.cases_of`."""
    exact = language_family.load(name) if checked else None
    for datatype in datatypes:
        model = language_family.load(f"{name}:{datatype}")
        for tokens in sizes:
            yield _step_case(name, model, exact, engines, datatype, tokens, levels)


def _step_case(
    name: str,
    model: LanguageModel,
    exact: LanguageModel | None,
    engines: Sequence[str],
    datatype: str,
    tokens: int,
    levels: Sequence[float],
) -> Case:
    if not 2 <= tokens <= model.context_length:
        raise ValueError(f"a size is 2 to {model.context_length} tokens, got {tokens}")
    text = model.encode(" ".join(text_data.sample()))
    inputs = [np.array(window) for window in windows(text, TEXTS, tokens)]
    step = _Step(model)
    peers = [
        Run(engine, _engine(engine, name, model, datatype, tokens))
        for engine in ENGINES
        if language_engines.able(engine, datatype, engines)
    ]
    of_exact = _Step(exact) if exact else None
    wanted = [of_exact(ids, GateContext(0.0)) for ids in inputs] if of_exact else []
    gated = [Level(step, level) for level in levels]
    at_levels = [Run(f"level {level:g}", run, level, run.macs_ratio) for level, run in zip(levels, gated, strict=True)]
    runs = [Run("sluice", lambda ids: step(ids, GateContext(0.0))), *peers, *at_levels]
    macs = model.network.shape.macs(tokens - 1, tokens, True)
    return Case(f"the step after {tokens - 1} tokens", tokens, datatype, macs, inputs, wanted, runs, "tokens/s")


class _Step:
    """Our model as an engine: the texts' sequences are kept, and stand before their last token at each call."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._sequences: dict[bytes, Generation] = {}

    def __call__(self, ids: NDArray[Any], context: GateContext) -> NDArray[np.float32]:
        sequence = self._sequences.get(ids.tobytes())
        if sequence is None:
            sequence = self._sequences[ids.tobytes()] = self._model.begin(ids[:-1].tolist())
            while sequence.pending():
                self._model.step([sequence], [GateContext(0.0)])
            sequence.append(int(ids[-1]))
        sequence.cache.length = len(ids) - 1
        (logits,) = self._model.step([sequence], [context])
        assert logits is not None  # one token was pending
        return logits


def _engine(engine: str, name: str, model: LanguageModel, datatype: str, longest: int) -> Engine:
    if engine == "torch":
        return language_engines.torch_decoder(model.folder, datatype)
    source = language_family.gguf_file(name)
    if source is None:
        raise MissingWeights(f"{name} is no GGUF file, which llama-cpp needs")
    return language_engines.llama_cpp(source, default_home(), datatype, longest)
