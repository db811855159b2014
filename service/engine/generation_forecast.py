"""What is known of the generations of a model: how long their steps take, and how many they are."""

from dataclasses import dataclass, field
from math import ceil

from models.model import GateContext
from service.control.generation import Pace
from service.control.latency_model import LatencyModel
from service.control.level import Ceiling
from service.control.load import Work

PROMPT_PART = 256
"""Tokens that a step is expected to take of a prompt."""
_SMOOTH = 0.1
_LEAST_SKIPPED = 0.05


@dataclass(slots=True)
class Forecast:
    """`tokens` is of steps without a prompt, and `prompts` of those with one. Dense multiply-accumulates, means of the
    recent ones: `macs_per_token` of a generated token, `macs_in_prompt` of one in a prompt, whose successor is known,
    and `typical_prompt` of a whole one. `length` is how many tokens a generation makes. All are 0 before any.
    """

    tokens: LatencyModel = field(default_factory=LatencyModel)
    prompts: LatencyModel = field(default_factory=LatencyModel)
    macs_per_token: float = 0.0
    macs_in_prompt: float = 0.0
    typical_prompt: float = 0.0
    length: float = 0.0
    prompt_skips: float = 0.0
    """What of the MACs that the profile skips at a level is skipped of a prompt too, 0 to 1: many positions together
    may need nearly all channels."""
    parts_seen: int = 0

    def saw_prompt(self, tokens: int, macs: int) -> None:
        """A prompt of so many tokens had so many dense multiply-accumulates."""
        self.macs_in_prompt = _followed(self.macs_in_prompt, macs / tokens)
        self.typical_prompt = _followed(self.typical_prompt, macs)

    def saw_part(self, context: GateContext, macs_ratio: float) -> None:
        """A part of a prompt was run under a context, at whose level the profile does this share of the MACs."""
        if macs_ratio < 1 - _LEAST_SKIPPED:
            skips = min(context.macs_skipped_ratio / (1 - macs_ratio), 1.0)
            self.parts_seen += 1
            self.prompt_skips += (skips - self.prompt_skips) * max(1 / self.parts_seen, _SMOOTH)

    def saw_token(self, macs: int) -> None:
        """A generated token had so many."""
        self.macs_per_token = _followed(self.macs_per_token, macs)

    def saw_generation(self, tokens: int) -> None:
        """One came to its end after so many tokens."""
        self.length = _followed(self.length, tokens)

    def pace(self, margin: float) -> Pace:
        return Pace(self.tokens, self.prompts, margin)

    def prompt(self, tokens: int, ceiling: Ceiling) -> float:
        """Seconds of a prompt at the ceiling."""
        overhead = parts_of(tokens) * self.prompts.overhead
        return overhead + self.prompt_work(tokens * self.macs_in_prompt).at(ceiling.macs_ratio)

    def prompt_work(self, macs: float) -> Work:
        """The work of so many dense multiply-accumulates in prompts, without what a step costs."""
        seconds = self.prompts.scalable(macs)
        return Work(seconds * (1 - self.prompt_skips), seconds * self.prompt_skips)

    def token(self) -> Work:
        """The work of one token, without what a step costs however many take part."""
        return Work(0.0, self.tokens.scalable(self.macs_per_token))

    def token_seconds(self, together: int, token: float) -> float:
        """What a token takes where each step has so many of them and one may take `token` seconds: dense if there is
        time for that, and else at a level that leaves just the time."""
        return min(self.tokens.seconds(together * self.macs_per_token), token)

    def prompt_alone(self, seconds: float) -> float:
        """The upper time of a prompt that takes `seconds`; 0 while nothing is known."""
        return seconds * self.prompts.tail_ratio if self.prompts.trusted else 0.0

    def token_alone(self, ceiling: Ceiling) -> float:
        """The upper time of a token of one generation alone, at the ceiling; 0 while nothing is known."""
        return self.tokens.upper(self.macs_per_token * ceiling.macs_ratio) if self.tokens.trusted else 0.0

    def token_least(self, ceiling: Ceiling) -> float:
        """The expected time of the same."""
        return self.tokens.seconds(self.macs_per_token * ceiling.macs_ratio)

    def attainable(self, ceiling: Ceiling, first_token: float, token: float) -> bool:
        """Whether one generation alone, with a typical prompt, keeps these times at the ceiling; seconds."""
        prompt = self.prompts.overhead + self.prompt_work(self.typical_prompt).at(ceiling.macs_ratio)
        return self.prompt_alone(prompt) <= first_token and self.token_alone(ceiling) <= token


def parts_of(tokens: int) -> int:
    """Steps that a prompt is expected to take."""
    return ceil(tokens / PROMPT_PART)


def _followed(mean: float, value: float) -> float:
    return mean + (value - mean) * _SMOOTH if mean else value
