"""A step on an executor's thread: the model's own, and the choice of each next token."""

import logging

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext, Generator, InvalidInput, Sequence
from service.engine.counts import check_counts
from service.engine.generation_entry import Advance, GenerationEntry
from service.engine.generation_pool import Result, Step
from service.errors import Internal, InvalidRequest

log = logging.getLogger(__name__)


def run_step(step: Step) -> list[Result]:
    """What became of each generation of a step. What goes wrong in one alone is its own misfortune; a fault of the
    model's step is that of all that were in it.
    """
    model = step.pool.model
    results: dict[GenerationEntry, Result] = {}
    begun: list[tuple[GenerationEntry, GateContext, Sequence]] = []
    for entry, context in zip(step.entries, step.contexts, strict=True):
        try:
            begun.append((entry, context, _begun(model, entry)))
        except InvalidInput as error:
            results[entry] = InvalidRequest(str(error).removeprefix(f"{error.field}: "), error.field)
        except Exception as error:
            results[entry] = _fault(model, entry, error)
    try:
        contexts = [context for _, context, _ in begun]
        rows = model.step([sequence for _, _, sequence in begun], contexts) if begun else []
        for context in contexts:
            check_counts(context)
    except BaseException as error:
        results |= {entry: _fault(model, entry, error) for entry, _, _ in begun}
    else:
        for (entry, context, sequence), logits in zip(begun, rows, strict=True):
            results[entry] = _advance(model, entry, context, sequence, logits)
    return [results[entry] for entry in step.entries]


def _begun(model: Generator, entry: GenerationEntry) -> Sequence:
    # Here and not at admission: the cache of one that waits would be memory that nobody uses.
    if entry.sequence is None:
        entry.sequence = model.begin(entry.request.tokens)
    return entry.sequence


def _advance(
    model: Generator,
    entry: GenerationEntry,
    context: GateContext,
    sequence: Sequence,
    logits: NDArray[np.float32] | None,
) -> Result:
    try:
        if logits is None:
            entry.next_macs = model.step_macs(sequence)
            return Advance(context)
        return entry.receive(model, entry.sampler.choose(logits), context)
    except Exception as error:
        return _fault(model, entry, error)


def _fault(model: Generator, entry: GenerationEntry, error: BaseException) -> Internal:
    log.error("model %s failed on request %s", model.name, entry.request.id, exc_info=error)
    return Internal(f"the model {model.name!r} failed on this request: {type(error).__name__}")
