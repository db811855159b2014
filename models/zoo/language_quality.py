"""What a language model does at each of its operating points on a text that neither calibration nor the profile saw:
its perplexity, and how often the likeliest token is the dense model's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from time import perf_counter
from typing import Any

import numpy as np

from models.gating.agreement import CONFIDENCE
from models.gating.profile import lower_bound
from models.model import GateContext
from models.zoo.language_gates import PromptGates, log_probabilities, log_softmax, losses, masking, windows
from models.zoo.language_model import LanguageModel
from models.zoo.llama_packing import Array

TEXT_WINDOWS = 24
LONG_WINDOWS, LONG_TOKENS = 2, 1024
PROMPTS, PROMPT_TOKENS, CONTINUED = 8, 32, 48
"""The dense model continues so many prompts, of so many tokens, by so many; each level then takes the same steps."""


def perplexity_ratio(dense: Array, gated: Array) -> tuple[float, float]:
    """Dense perplexity / that with gates, and its one-sided lower confidence bound (normal), from the losses of the
    same tokens. At most 1: a model that gates improve agrees no better than wholly."""
    difference = (gated - dense).astype(np.float64)
    margin = NormalDist().inv_cdf(CONFIDENCE) * difference.std(ddof=1) / np.sqrt(len(difference))
    mean = difference.mean()
    return float(min(1.0, np.exp(-mean))), float(min(1.0, np.exp(-(mean + margin))))


def measure_language(
    model: LanguageModel, text: str, levels: Sequence[float], report: Callable[[float], None]
) -> dict[str, Any]:
    """Everything that `sluice quality` reports of some levels, as plain data; `report` is called with the share done.
    Raises `ValueError` for a text that is too short."""
    read = windows(model.encode(text), TEXT_WINDOWS)
    dense, (behind, _) = _losses(model, read, 0.0), _behind_prompts(model, read, 0.0)
    prompts = [tokens[:PROMPT_TOKENS] for tokens in read if len(tokens) > PROMPT_TOKENS][:PROMPTS]
    continued = _continue(model, prompts) if prompts else []
    rows = []
    for i, level in enumerate(levels):
        gated = _losses(model, read, level)
        behind_gated, prompt_macs_ratio = _behind_prompts(model, read, level)
        ratio, lower = perplexity_ratio(dense, gated)
        prompt_ratio, prompt_lower = perplexity_ratio(behind, behind_gated)
        same, steps, macs_ratio, skip_rate, seconds = _agree(model, prompts, continued, level)
        rows.append(
            {
                "level": level,
                "macs_ratio": macs_ratio,
                "skip_rate": skip_rate,
                "perplexity": float(np.exp(gated.mean())),
                "perplexity_ratio": ratio,
                "perplexity_ratio_lower": lower,
                "prompt_macs_ratio": prompt_macs_ratio,
                "prompt_perplexity_ratio": prompt_ratio,
                "prompt_perplexity_ratio_lower": prompt_lower,
                "token_agreement": same / steps if steps else 1.0,
                "token_agreement_lower": lower_bound(same, steps, CONFIDENCE),
                "ms_per_step": seconds * 1e3,
            }
        )
        report((i + 1) / len(levels))
    tokens = sum(len(part) - 1 for part in read)
    return {"model": model.name, "tokens": tokens, "steps": len(prompts) * (CONTINUED - 1), "points": rows}


def measure_long_texts(
    model: LanguageModel, text: str, levels: Sequence[float], report: Callable[[float], None]
) -> list[dict[str, Any]]:
    """What `sluice quality` reports of long texts, where gates on heads leave out far positions: perplexity and time at
    some levels, as plain data; nothing where the text or the model's context is too short for one. Their first halves
    are dense prompts, and the tokens of the others are steps, one sequence at a time."""
    read = windows(model.encode(text), LONG_WINDOWS, LONG_TOKENS) if model.context_length >= LONG_TOKENS else []
    if not read or len(read[0]) < LONG_TOKENS:
        return []
    dense, rows = _steps(model, read, 0.0), []
    for i, level in enumerate(levels):
        gated = _steps(model, read, level)
        ratio, lower = perplexity_ratio(dense.losses, gated.losses)
        rows.append(
            {
                "level": level,
                "macs_ratio": 1 - gated.context.macs_skipped_ratio,
                "near_heads": gated.near_heads,
                "perplexity": float(np.exp(gated.losses.mean())),
                "perplexity_ratio": ratio,
                "perplexity_ratio_lower": lower,
                "ms_per_step": gated.seconds * 1e3,
                "times_as_fast": dense.seconds / gated.seconds,
            }
        )
        report((i + 1) / len(levels))
    return rows


@dataclass(frozen=True, slots=True)
class _Steps:
    """Of the tokens of long texts: their losses, what the gates did, the share of the heads that read no far positions,
    and the median seconds of a step."""

    losses: Array
    context: GateContext
    near_heads: float
    seconds: float


def _steps(model: LanguageModel, read: Sequence[Sequence[int]], level: float) -> _Steps:
    context, found, seconds, half = GateContext(level), [], [], LONG_TOKENS // 2
    for tokens in read:
        sequence, logits = model.begin(tokens[:half]), None
        while logits is None:
            logits = model.step([sequence], [GateContext(0.0)])[0]
        said = [logits]
        for token in tokens[half:-1]:
            sequence.append(token)
            started = perf_counter()
            logits = model.step([sequence], [context])[0]
            seconds.append(perf_counter() - started)
            assert logits is not None  # the prompt is behind it
            said.append(logits)
        found.append(losses(log_softmax(np.stack(said)), tokens))
    heads = [work for gate, work in context.layers.items() if gate.endswith(".heads")]
    near = sum(work.skipped for work in heads) / sum(work.channels for work in heads)
    return _Steps(np.concatenate(found), context, near, float(np.median(seconds)))


def _losses(model: LanguageModel, read: Sequence[Sequence[int]], level: float) -> Array:
    """Of all tokens of the windows, each of them as a step."""
    mask = None
    if level > 0 and model.calibration:
        mask = masking(model.network, model.calibration, model.thresholds(level))
    return np.concatenate([losses(log_probabilities(model.network, tokens, mask), tokens) for tokens in read])


def _behind_prompts(model: LanguageModel, read: Sequence[Sequence[int]], level: float) -> tuple[Array, float]:
    """The losses of the windows' second halves, dense, where their first halves are prompts, and the share of the MACs
    of those that was done."""
    shape, found, done, whole = model.network.shape, [], 0, 0
    for tokens in read:
        gates = PromptGates(model.network.neuron_norms, model.prompt_thresholds(level))
        found.append(losses(log_probabilities(model.network, tokens, prompt=gates), tokens))
        length = len(tokens) // 2
        whole += shape.macs(0, length, False)
        done += shape.macs(0, length, False) - gates.skipped * 2 * shape.hidden * length
    return np.concatenate(found), done / whole if whole else 1.0


def _continue(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The dense model's likeliest tokens after each prompt."""
    sequences = [model.begin(prompt) for prompt in prompts]
    for _ in range(CONTINUED):
        answers = model.step(sequences, [GateContext(0.0) for _ in sequences])
        for sequence, logits in zip(sequences, answers, strict=True):
            assert logits is not None  # prompts are shorter than a chunk
            sequence.append(int(logits.argmax()))
    return [sequence.tokens[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]


def _agree(
    model: LanguageModel, prompts: Sequence[Sequence[int]], continued: Sequence[Sequence[int]], level: float
) -> tuple[int, int, float, float, float]:
    """Steps at a level along the dense continuations: in how many of how many the likeliest token is the dense one, the
    MACs and skip rate of a step, and the median seconds of a step of all sequences."""
    if not prompts:
        return 0, 0, 1.0, 0.0, 0.0
    sequences = [model.begin(prompt) for prompt in prompts]
    model.step(sequences, [GateContext(0.0) for _ in sequences])
    same, seconds, contexts = 0, [], [GateContext(level) for _ in sequences]
    for i in range(CONTINUED - 1):
        for sequence, tokens in zip(sequences, continued, strict=True):
            sequence.append(tokens[i])
        started = perf_counter()
        answers = model.step(sequences, contexts)
        seconds.append(perf_counter() - started)
        for logits, tokens in zip(answers, continued, strict=True):
            same += logits is not None and int(logits.argmax()) == tokens[i + 1]
    ratio = float(np.mean([1 - context.macs_skipped_ratio for context in contexts]))
    rate = float(np.mean([context.skip_rate for context in contexts]))
    return same, len(prompts) * (CONTINUED - 1), ratio, rate, float(np.median(seconds))
