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
_TOKENS = 4


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
            for level in (0.0, 0.5, 1.0):
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
    """Runs a prompt and a few tokens `runs` times at each of three levels, as `warm_up` does."""
    model = pool.model
    try:
        prompt = (model.encode(_TEXT.decode()) or [0])[: model.context_length - _TOKENS - 1]
        for run in range(runs):
            for level in (0.0, 0.5, 1.0):
                _generate(pool, prompt, level, learn=run > 0 or level > 0)
    except Exception as error:
        log.info("model %s is not warmed up: %s: %s", model.name, type(error).__name__, error)


def _generate(pool: GenerationPool, prompt: list[int], level: float, learn: bool) -> None:
    model, sequence, macs = pool.model, pool.model.begin(prompt), 0
    for number in range(_TOKENS):
        logits = None
        while logits is None:
            context = GateContext(level)
            started = time.perf_counter()
            (logits,) = model.step([sequence], [context])
            seconds = time.perf_counter() - started
            macs += context.macs
            if not number:
                pool.forecast.saw_part(context, pool.hosted.dial.macs_ratio(level))
            if learn:
                latency = pool.forecast.tokens if number else pool.forecast.prompts
                latency.observe(context.macs - context.macs_skipped, seconds)
        if number == 0:
            pool.forecast.saw_prompt(len(prompt), macs)
        else:
            pool.forecast.saw_token(context.macs)
        sequence.append(int(logits.argmax()))
