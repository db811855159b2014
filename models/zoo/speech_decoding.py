"""Greedy decoding of one window of speech: which token comes next, and when to stop (Radford et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.model import GateContext
from models.zoo.whisper import Heard, Whisper
from models.zoo.whisper_files import SpeechTokens
from models.zoo.whisper_layers import Array
from models.zoo.whisper_words import NextWords, log_sum

LATEST_FIRST_TIME = 50
"""The first segment begins in the first second."""

REPEATED_TIMES, REPEATED_TOKENS = 4, 16
"""A phrase that comes so often, in so many tokens together, is a loop: the decoder does not leave it by itself."""

TOKENS_AT_LEAST, TOKENS_PER_SECOND = 20, 15
"""Nobody speaks so fast."""


@dataclass(slots=True)
class Said:
    """The tokens of a window, without the end's; the sum of their log probabilities and of the end's; `no_speech` is
    the probability that there is none, 0 where nobody asked."""

    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    no_speech: float = 0.0
    language: str | None = None

    @property
    def mean_log_probability(self) -> float:
        return self.log_probability / (len(self.tokens) + 1)


class GreedyDecoder:
    """Says what a window holds. Holds no state of a request's: runs may overlap."""

    def __init__(self, model: Whisper, tokens: SpeechTokens) -> None:
        self._model = model
        self._tokens = tokens
        never = np.zeros(model.shape.vocabulary, np.float32)
        never[tokens.end + 1 :] = -np.inf
        never[list(tokens.suppressed)] = -np.inf
        self._never = never
        self._never_first = never.copy()
        self._never_first[list(tokens.suppressed_first)] = -np.inf

    @property
    def end(self) -> int:
        """The token behind a text."""
        return self._tokens.end

    def prompt(self, language: str | None, earlier: Sequence[int], times: bool) -> list[int]:
        """The tokens before a text in this language (None where the model knows one alone), after `earlier` text."""
        tokens, room = self._tokens, self._model.shape.context // 2 - 1
        before = (tokens.previous, *earlier[-room:]) if earlier else ()
        spoken = (tokens.languages[language], tokens.task) if language is not None else ()
        return [*before, tokens.start, *spoken, *(() if times else (tokens.no_timestamps,))]

    def language(self, heard: Heard, context: GateContext, thresholds: Mapping[str, float]) -> str:
        """The folder's own language, if it has one; else the likeliest of a window, of those that the model knows."""
        if self._tokens.language is not None:
            return self._tokens.language
        decoding = self._model.listen(heard, context, thresholds)
        logits = self._model.step([self._tokens.start], decoding, context, thresholds).logits
        return max(self._tokens.languages, key=lambda name: float(logits[self._tokens.languages[name]]))

    def say(
        self,
        heard: Heard,
        prompt: Sequence[int],
        seconds: float,
        times: bool,
        context: GateContext,
        thresholds: Mapping[str, float],
    ) -> Said:
        """The tokens of a window of so many seconds, with those of times among them if asked to. Raises `Cancelled`
        between two of them when nobody waits any more."""
        tokens, model, said = self._tokens, self._model, Said()
        decoding = model.listen(heard, context, thresholds)
        asked = list(prompt).index(tokens.start) + 1 if times and tokens.no_speech is not None else len(prompt)
        possible = None if times else self._never_first
        words = model.step(prompt[:asked], decoding, context, thresholds, possible)
        if times and tokens.no_speech is not None:
            said.no_speech = float(np.exp(words.logits[tokens.no_speech] - log_sum(words.logits)))
        if prompt[asked:]:
            words = model.step(prompt[asked:], decoding, context, thresholds, possible)
        limit = min(model.shape.context // 2, int(TOKENS_AT_LEAST + TOKENS_PER_SECOND * seconds))
        for _ in range(min(limit, model.shape.context - len(prompt))):
            context.check_wanted()
            if times:
                words = NextWords(None, self._in_order(words.logits, said.tokens))
            token, log_probability = words.likeliest()
            said.log_probability += log_probability
            if token == tokens.end:
                break
            said.tokens.append(token)
            if surplus := repeated([token for token in said.tokens if token < tokens.end]):
                del said.tokens[_text_from_end(said.tokens, tokens.end, surplus) :]
                break
            words = model.step([token], decoding, context, thresholds, None if times else self._never)
        return said

    def _in_order(self, logits: Array, said: Sequence[int]) -> Array:
        """The logits, −∞ for what cannot follow where times are among the tokens."""
        possible = logits + (self._never if said else self._never_first)
        possible[self._tokens.first_timestamp :] = logits[self._tokens.first_timestamp :]
        keep_times_in_order(possible, said, self._tokens)
        return possible


def keep_times_in_order(logits: Array, said: Sequence[int], tokens: SpeechTokens) -> None:
    """Rules out, in place, what cannot follow: times come in pairs around a text, first of all one, and never go back;
    and where all times together are likelier than the likeliest text, one of them is next."""
    begin, end = tokens.first_timestamp, tokens.end
    if not said:
        logits[:begin] = -np.inf
        logits[begin + LATEST_FIRST_TIME + 1 :] = -np.inf
        return
    last, before = said[-1] >= begin, len(said) < 2 or said[-2] >= begin
    if last and before:
        logits[begin:] = -np.inf
    elif last:
        logits[:end] = -np.inf
    latest = max((token for token in said if token >= begin), default=begin)
    logits[begin : latest if last and not before else latest + 1] = -np.inf
    if log_sum(logits[begin:]) > logits[:begin].max():
        logits[:begin] = -np.inf


def repeated(tokens: Sequence[int]) -> int:
    """How many tokens at the end of a text do nothing but repeat the phrase before them; 0 where it is no loop."""
    for period in range(1, len(tokens) // REPEATED_TIMES + 1):
        times = max(REPEATED_TIMES, -(-REPEATED_TOKENS // period))
        if len(tokens) >= times * period:
            tail = tokens[-times * period :]
            if all(tail[i] == tail[i % period] for i in range(period, len(tail))):
                return (times - 1) * period
    return 0


def _text_from_end(tokens: Sequence[int], end: int, count: int) -> int:
    """The index of the text token that has so many text tokens from it to the end."""
    places = [i for i, token in enumerate(tokens) if token < end]
    return places[-count]
