"""The first runs of a model, on inputs of zeros, a made-up text, or the model's own example: the latency model learns
from them, so that the first client is not the one to find out.
"""

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext, Model, TensorSpec, Transcriber
from service.control.latency_model import LatencyModel
from service.engine.generation_pool import GenerationPool

log = logging.getLogger(__name__)

_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}
_TEXT = b"zero " * 32
_LEVELS = (0.0, 0.5, 1.0)
_FEW = 4
"""Tokens of the very first run of a language model."""


def warm_up(model: Model, latency: LatencyModel, runs: int) -> int:
    """Runs the model `runs` times at each of three levels; the MACs of the dense model on the inputs that were made, 0
    if none could be.

    The very first run is not learned from: it pays for memory and code that the others find ready.
    """
    needed = [spec for spec in model.inputs if not spec.optional]
    inputs = model.example() if isinstance(model, Transcriber) else _inputs(needed)
    if runs == 0 or inputs is None:
        return 0
    try:
        model.check(inputs)
        model.run(inputs, GateContext(0.0))
        for _ in range(runs):
            for level in _LEVELS:
                context = GateContext(level)
                started = time.perf_counter()
                model.run(inputs, context)
                latency.observe(context.macs - context.macs_skipped, time.perf_counter() - started)
        return model.dense_macs(inputs)
    except Exception as error:
        # They may be no input for it; its first requests will teach the latency model instead.
        log.info("model %s is not warmed up: %s: %s", model.name, type(error).__name__, error)
        return 0


def _inputs(specs: Sequence[TensorSpec]) -> Mapping[str, NDArray[np.generic]] | None:
    if any(spec.datatype not in _DTYPES and spec.datatype != "BYTES" for spec in specs):
        return None
    return {spec.name: _input(spec.datatype, [1 if size < 0 else size for size in spec.shape]) for spec in specs}


def _input(datatype: str, shape: list[int]) -> NDArray[np.generic]:
    return np.full(shape, _TEXT, object) if datatype == "BYTES" else np.zeros(shape, _DTYPES[datatype])


def warm_up_generation(pool: GenerationPool, runs: int) -> None:
    """Runs a prompt and a token at each of three levels `runs` times, the prompts at one after the other of them. A few
    tokens before that are not learned from, as in `warm_up`."""
    model = pool.model
    try:
        prompt = (model.encode(_TEXT.decode()) or [0])[: model.context_length - len(_LEVELS) - 1]
        if runs:
            _generate(pool, prompt[:_FEW], (0.0, 0.0), learn=False)
        for run in range(runs):
            _generate(pool, prompt, (_LEVELS[run % len(_LEVELS)], *_LEVELS), learn=True)
    except Exception as error:
        log.info("model %s is not warmed up: %s: %s", model.name, type(error).__name__, error)


def _generate(pool: GenerationPool, prompt: list[int], levels: Sequence[float], learn: bool) -> None:
    """The levels are the prompt's, and those of the tokens behind it."""
    model, forecast, sequence, macs = pool.model, pool.forecast, pool.model.begin(prompt), 0
    for number, level in enumerate(levels):
        logits = None
        while logits is None:
            context = GateContext(level)
            started = time.perf_counter()
            (logits,) = model.step([sequence], [context])
            seconds = time.perf_counter() - started
            macs += context.macs
            if learn:
                if not number:
                    forecast.saw_part(context, pool.hosted.dial.macs_ratio(level))
                latency = forecast.tokens if number else forecast.prompts
                latency.observe(context.macs - context.macs_skipped, seconds)
        if learn and number:
            forecast.saw_token(context.macs)
        elif learn:
            forecast.saw_prompt(len(prompt), macs)
        sequence.append(int(logits.argmax()))
