"""How a generation's next token is chosen from the logits of a step.

>>> sampler = Sampler(Sampling(temperature=0))
>>> sampler.choose(np.array([0.0, 2.0, 1.0], np.float32)).token
1
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LIKELIEST = 512
"""So many candidates hold the whole nucleus as a rule, and are sorted faster than a vocabulary."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """`temperature` divides the logits, 0 takes the likeliest token. Of the likeliest tokens whose probabilities add up
    to `top_p`, 0 to 1, one is drawn (nucleus sampling, Holtzman et al. 2020). With a `seed` the same logits give the
    same tokens. A token's logit falls by `frequency_penalty` for each time that it was generated already, and once by
    `presence_penalty`; `bias` is added to the logits of some tokens, by their ids. `logprobs` asks for the
    log-probability of each token, and of so many likeliest ones beside it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None
    bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was drawn, and the likeliest one, which may be another. The log-probabilities are the model's own,
    of its token and of the likeliest ones, where they were asked for.
    """

    token: int
    likeliest: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Of one generation; it knows which tokens were drawn before."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._drawn: Counter[int] = Counter()

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """The next token, from logits [vocabulary]. Raises `ValueError` where they are no numbers."""
        values = logits.astype(np.float64)
        likeliest = int(values.argmax())
        if not np.isfinite(values[likeliest]):
            raise ValueError("the model's logits are not finite")
        token = self._draw(values, likeliest)
        self._drawn[token] += 1
        if self._sampling.logprobs is None:
            return Choice(token, likeliest)
        logarithms = values - values[likeliest]
        logarithms -= np.log(np.exp(logarithms).sum())
        top = _largest(logarithms, self._sampling.logprobs)
        return Choice(
            token,
            likeliest,
            float(logarithms[token]),
            tuple((int(index), float(logarithms[index])) for index in top),
        )

    def _draw(self, values: NDArray[np.float64], likeliest: int) -> int:
        sampling = self._sampling
        if sampling.frequency_penalty or sampling.presence_penalty or sampling.bias:
            values = values.copy()
            for token, bias in sampling.bias:
                values[token] += bias
            for token, count in self._drawn.items():
                values[token] -= sampling.frequency_penalty * count + sampling.presence_penalty
            likeliest = int(values.argmax())
        if sampling.temperature == 0:
            return likeliest
        # A temperature of next to nothing takes the quotients out of range, and leaves the likeliest, as it should.
        with np.errstate(over="ignore"):
            powers = np.exp((values - values[likeliest]) / sampling.temperature)
        tokens = _nucleus(powers, sampling.top_p) if sampling.top_p < 1 else None
        sums = np.cumsum(powers if tokens is None else powers[tokens])
        drawn = min(int(np.searchsorted(sums, self._random.random() * sums[-1], side="right")), len(sums) - 1)
        return drawn if tokens is None else int(tokens[drawn])


def _nucleus(powers: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """The fewest of the likeliest tokens whose share is at least `top_p`, at least one."""
    wanted = top_p * powers.sum()
    tokens = _largest(powers, _LIKELIEST)
    sums = np.cumsum(powers[tokens])
    if sums[-1] < wanted and len(tokens) < len(powers):
        tokens = _largest(powers, len(powers))
        sums = np.cumsum(powers[tokens])
    return tokens[: int(np.searchsorted(sums, wanted)) + 1]


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The indices of the largest, in order."""
    if count < len(values):
        found = np.argpartition(values, len(values) - count)[len(values) - count :] if count else np.empty(0, np.intp)
    else:
        found = np.arange(len(values))
    return found[np.argsort(-values[found], kind="stable")]
