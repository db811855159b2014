"""A generation in the engine's hands, from admission to its last token."""

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from models.model import GateContext, Generator, Sequence
from service.control.generation import Turn, next_due
from service.control.generation_slo import GenerationSLO
from service.control.level import Ceiling
from service.control.load import Work
from service.engine.generated_text import GeneratedText
from service.engine.generation import FinishReason, GenerationRequest, Token
from service.engine.generation_forecast import Forecast
from service.engine.sampling import Choice, Sampler
from service.engine.stream import Stream

if TYPE_CHECKING:
    from service.engine.hosted import HostedModel


@dataclass(frozen=True, slots=True)
class Advance:
    """What a step did for one generation: its own counts, and the text that it added. `likeliest` is None while the
    prompt is not done."""

    context: GateContext
    text: str = ""
    tokens: tuple[Token, ...] = ()
    likeliest: int | None = None
    finish_reason: FinishReason | None = None


@dataclass(slots=True, eq=False)
class GenerationEntry:
    """`slo` is the one in force at arrival. `due` is when the next token is due, of the first as the plan wants it, and
    `first_due` when that is late; `token` is the seconds that each further one may take in the mean, and `pace` what it
    is planned to take. Times are the engine's clock.

    Of a `token` that cannot be kept, the `pace` is the least that one takes: it is missed by little. What others are
    given is planned with the seconds that are `allowed`, which are more: a wrong number is the trouble of who gave it.

    Between two steps it belongs to the engine, under its lock; during one to the executor that runs it, but for `over`,
    which says that nobody waits for more.
    """

    request: GenerationRequest
    hosted: "HostedModel"
    stream: Stream | None
    slo: GenerationSLO
    ceiling: Ceiling
    first_due: float
    due: float
    token: float
    pace: float
    allowed: float
    keeps_pace: bool
    """Whether `token` can be kept, and `attainable` whether all of the SLO can."""
    attainable: bool
    prompt_macs: float
    """Dense multiply-accumulates of the prompt, expected."""
    least: float
    """Predicted seconds of the prompt at the ceiling."""
    admitted: float
    expires: float
    asked: float
    """Seconds to the first token that the SLO or the client asks for."""
    most_tokens: int
    text: GeneratedText
    sampler: Sampler
    sequence: Sequence | None = None
    context: GateContext = field(default_factory=lambda: GateContext(0.0))
    """What was done and skipped so far; its level is the mean."""
    next_macs: float = 0.0
    """Dense multiply-accumulates of the next step."""
    quality: float = 0.0
    """Sum over the steps."""
    levels: float = 0.0
    steps: int = 0
    compute_seconds: float = 0.0
    taken: float = 0.0
    first: float | None = None
    """When the first token was there; None before."""
    last: float = 0.0
    generated: int = 0
    unread: int = 0
    stepping: bool = False
    paused: float | None = None
    """Since when it waits for its reader; None while it does not."""
    paused_seconds: float = 0.0
    over: bool = False
    _unreleased: list[tuple[int, Token]] = field(default_factory=list)
    """Tokens whose text is held back, each with the place of its end."""

    @property
    def pinned(self) -> float | None:
        return self.request.options.common.level

    @property
    def in_prompt(self) -> bool:
        return self.first is None

    def dead(self, now: float) -> bool:
        """While it waits: past its timeout, or too late for its first token at any level, where late answers are not
        wanted and one in time could be had."""
        late = self.leads and self.slo.shed and self.attainable and now + self.least > self.first_due
        return now >= self.expires or late

    @property
    def leads(self) -> bool:
        """Whether it is the first of its request's generations: all are let in with it, and come after one another."""
        return self.request.number == 0

    def advance_due(self, now: float) -> None:
        """A token was there at `now`: when the next one is due. Of a pace that cannot be kept nothing is owed."""
        self.due = next_due(self.due, now, self.pace) if self.keeps_pace else now + self.pace

    def read(self, now: float) -> bool:
        """Its reader has taken a piece; whether it had paused and goes on."""
        self.unread -= 1
        if self.paused is None:
            return False
        self.paused_seconds += now - self.paused
        self.due = now + self.pace
        self.paused = None
        return True

    def slack(self, now: float) -> float:
        """Seconds until its next token is due. While it waits for others of its request, those that it will have."""
        return self.due - (now if self.leads or self.taken else self.request.arrival)

    def turn(self, now: float, forecast: Forecast) -> Turn:
        """What it asks of the next step."""
        if not self.in_prompt:
            work = self._work(Work(0.0, forecast.tokens.scalable(self.next_macs)))
            each = self.pace if self.keeps_pace else self.allowed
            to_come = self.most_tokens - self.generated
            return Turn(self.slack(now), work, self.ceiling, each, None, self.pinned, to_come)
        left = max(self.prompt_macs - self.context.macs, self.next_macs)
        work, rest = (self._work(forecast.prompt_work(macs)) for macs in (self.next_macs, left))
        return Turn(self.slack(now), work, self.ceiling, self.allowed, rest, self.pinned)

    def _work(self, work: Work) -> Work:
        return Work(work.at(self.ceiling.macs_ratio)) if self.pinned is not None else work

    def receive(self, model: Generator, choice: Choice, context: GateContext) -> Advance:
        """Takes the next token in: what can be shown of it, and whether it was the last."""
        assert self.sequence is not None
        token = choice.token
        if token in model.end_tokens:
            return Advance(context, self.text.end(), self._release(inf), choice.likeliest, "stop")
        before = self.text.length
        more = model.decode([token])
        text = self.text.add(more)
        if choice.logprob is not None:
            top = tuple((model.decode([other]), logprob) for other, logprob in choice.top)
            self._unreleased.append((self.text.length, Token(more, choice.logprob, top, before)))
        finish: FinishReason | None = None
        if self.text.stopped:
            finish = "stop"
        elif self.generated + 1 >= self.most_tokens:
            finish = "length"
            text += self.text.end()
            # A stop string may have been complete but for half a character.
            finish = "stop" if self.text.stopped else "length"
        if finish is None:
            self.sequence.append(token)
            self.next_macs = model.step_macs(self.sequence)
        return Advance(
            context, text, self._release(self.text.released if finish is None else inf), choice.likeliest, finish
        )

    def _release(self, released: float) -> tuple[Token, ...]:
        """The tokens whose text is out. At the end, all but those that begin in what was cut off."""
        if released == inf:
            shown = [token for _, token in self._unreleased if token.offset < self.text.released]
            self._unreleased.clear()
            return tuple(shown)
        count = next((i for i, (end, _) in enumerate(self._unreleased) if end > released), len(self._unreleased))
        shown = [token for _, token in self._unreleased[:count]]
        del self._unreleased[:count]
        return tuple(shown)


def add_counts(total: GateContext, part: GateContext) -> None:
    """Adds what a step did to what was done before."""
    for layer, work in part.layers.items():
        total.record(layer, work.channels, work.channels - work.skipped, work.last_active)
    total.macs += part.macs
    total.macs_skipped += part.macs_skipped
