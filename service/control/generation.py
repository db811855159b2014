"""The next step of the generations of one model: which of them take part, and at what level each.

A *turn* is what a generation asks of a step: one token, or the next part of its prompt. Its laxity is the time that is
left when it has been done at its ceiling; the one with the least goes first.

A level keeps two rules, each of which gives a greatest share of the dense MACs, as in `service.control.level`:

1. The step is over when the turn's own next token is due, if all of its turns ran at this level.
2. Every prompt that waits is done by the time that its first token is due, and all tokens that are due until then,
   again all at this level: what a prompt costs is spread over its whole time, not laid on the steps beside it.

A generation that is ahead of its SLO has time to give away, so a prompt can go before its next token; one that is
behind catches up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from models.gating.profile import Profile
from service.control.admission import ROOM
from service.control.latency_model import LatencyModel
from service.control.level import Ceiling, level_of_share, share_in_time
from service.control.load import Work

_MANY = 1 << 20
LEAD = 16
"""Tokens that a generation may be ahead of its SLO: what is more is not counted, so a stall that a reader would notice
is one to be prevented, however fast the beginning was."""


@dataclass(frozen=True, slots=True)
class Turn:
    """`slack` is seconds until the next token is due, below 0 when it is late. `work` is the next step's alone, without
    what a step costs however many take part; a pinned level's does not scale. Of a prompt, `rest` is the work of all of
    it that is left; None says that the turn is a token, and then `token` is the seconds that one may take, and `left`
    how many are still to come at most.
    """

    slack: float
    work: Work
    ceiling: Ceiling
    token: float = inf
    rest: Work | None = None
    pinned: float | None = None
    left: float = inf

    @property
    def least(self) -> float:
        """Seconds of all that is asked for, at the ceiling."""
        return (self.rest or self.work).at(self.ceiling.macs_ratio)

    @property
    def laxity(self) -> float:
        """Seconds that it can wait."""
        return self.slack - self.least


@dataclass(frozen=True, slots=True)
class Pace:
    """What steps take: of tokens alone, and with a prompt among them. Predicted times are stretched by `margin`."""

    tokens: LatencyModel
    prompts: LatencyModel
    margin: float = 1.0

    def step(self, turns: Sequence[Turn]) -> Work:
        """The work of a step of these turns."""
        total = Work(self._model(turns).overhead)
        for turn in turns:
            total += turn.work
        return total

    def stretch(self, turns: Sequence[Turn]) -> float:
        """What the predicted time of a single step is multiplied by."""
        return self.margin * self._model(turns).tail_ratio

    def _model(self, turns: Sequence[Turn]) -> LatencyModel:
        return self.tokens if all(turn.rest is None for turn in turns) else self.prompts


def choose_turns(turns: Sequence[Turn], pace: Pace, most: int, idle: bool = False) -> list[int]:
    """The indices of those that take part in the next step; none of no turns. `idle`: another executor could take turns
    of this model now.

    Tokens are taken together, `most` at once, since a step reads the weights once for all of them. A turn that would
    make a more urgent one late waits, if it is not late itself by then. One prompt at most is in a step: beside an
    executor that is free it has the step to itself, and else it takes the tokens along, which would have to wait for it
    otherwise.
    """
    order = sorted(range(len(turns)), key=lambda index: turns[index].laxity)
    prompts = [index for index in order if turns[index].rest is not None]
    tokens = [index for index in order if turns[index].rest is None]
    if not order:
        return []
    if idle and order[0] in prompts:
        return prompts[:1]
    together = _together([turns[index] for index in tokens], pace, most)
    chosen = tokens[:together]
    if prompts and not idle and _prompt_goes(turns, chosen, prompts[0], pace):
        return [*chosen, prompts[0]]
    return chosen


def choose_levels(
    profile: Profile, turns: Sequence[Turn], chosen: Sequence[int], pace: Pace, executors: int = 1
) -> list[float]:
    """The level of each chosen turn. `turns` are all that run, and `executors` those that share the work."""
    step = pace.step([turns[index] for index in chosen])
    stretch = pace.stretch([turns[index] for index in chosen])
    common = _share_for_prompts(turns, pace, executors)
    return [_level(profile, turns[index], step, stretch, common) for index in chosen]


def places(token: float, work: Work, ceiling: Ceiling, pace: Pace, executors: int = 1) -> int:
    """How many generations may run at once, so that each has its token within `token` seconds at the ceiling; one an
    executor always may. `work` is what a token is.
    """
    room = token * (1 - ROOM) / pace.margin - pace.tokens.overhead
    each = work.at(ceiling.macs_ratio)
    together = room / each if each > 0 else inf
    return executors * int(min(max(together, 1), _MANY))


def tokens_until(slack: float, tokens: Sequence[Turn], pace: Pace) -> list[Work]:
    """The work of the tokens that are due within `slack` seconds: of each generation, and at the end that of the steps
    themselves."""
    counts = [min(max((slack - turn.slack) / turn.token + 1, 0.0), turn.left) for turn in tokens]
    works = [
        Work(turn.work.fixed * count, turn.work.scalable * count) for turn, count in zip(tokens, counts, strict=True)
    ]
    return [*works, Work(pace.tokens.overhead * max(counts, default=0.0))]


def next_due(due: float, now: float, token: float) -> float:
    """When the token after the one of `now` is due, which was due at `due`; seconds on any clock."""
    return min(due, now + LEAD * token) + token


def _together(tokens: Sequence[Turn], pace: Pace, most: int) -> int:
    for count in range(1, min(len(tokens), most)):
        joining = tokens[count]
        step = pace.stretch(tokens[: count + 1]) * _least(pace, tokens[: count + 1])
        alone = pace.stretch([joining]) * _least(pace, [joining])
        makes_late = step > tokens[0].slack >= pace.stretch(tokens[:count]) * _least(pace, tokens[:count])
        if makes_late and joining.slack > step + alone:
            return count
    return min(len(tokens), most)


def _prompt_goes(turns: Sequence[Turn], chosen: Sequence[int], prompt: int, pace: Pace) -> bool:
    """Whether a prompt's next part fits before the tokens are due, all dense, or cannot wait for one step of them more,
    however late they are."""
    tokens = [turns[index] for index in chosen]
    # Each of its parts takes the tokens along.
    company = pace.prompts.overhead + sum(token.least for token in tokens)
    needed = turns[prompt].least + _parts(turns[prompt]) * company
    if turns[prompt].slack - pace.margin * needed <= pace.step(tokens).at(1.0) * pace.stretch(tokens):
        return True
    both = [*(turns[index] for index in chosen), turns[prompt]]
    slack = min((turns[index].slack for index in chosen), default=inf)
    return pace.step(both).at(1.0) * pace.stretch(both) <= slack


def _least(pace: Pace, turns: Sequence[Turn]) -> float:
    ceilings = sum(turn.work.at(turn.ceiling.macs_ratio) for turn in turns)
    return pace.step(()).fixed + ceilings


def _level(profile: Profile, turn: Turn, step: Work, stretch: float, common: float) -> float:
    if turn.pinned is not None:
        return turn.pinned
    if turn.rest is not None and turn.work.scalable == 0:
        # A level that saves nothing would cost quality for nothing.
        return 0.0
    # A prompt goes on over many steps: the time that it has is for all of them, and the common share knows that.
    own = common if turn.rest is not None else share_in_time(turn.slack, step.fixed * stretch, step.scalable * stretch)
    return level_of_share(profile, turn.ceiling, min(own, common))


def _share_for_prompts(turns: Sequence[Turn], pace: Pace, executors: int) -> float:
    """The greatest share at which all prompts are in time, and the tokens that are due until then."""
    share, rest, parts = inf, Work(), 0.0
    tokens = [turn for turn in turns if turn.rest is None]
    for prompt in sorted((turn for turn in turns if turn.rest is not None), key=lambda turn: turn.slack):
        assert prompt.rest is not None
        rest += prompt.rest
        parts += pace.prompts.overhead * _parts(prompt)
        total = rest + Work(parts)
        for work in tokens_until(prompt.slack, tokens, pace):
            total += work
        stretch = pace.margin * pace.prompts.tail_ratio
        time = prompt.slack * min(executors, len(turns))
        share = min(share, share_in_time(time, total.fixed * stretch, total.scalable * stretch))
    return share


def _parts(prompt: Turn) -> int:
    """Steps that a prompt still takes."""
    part, rest = prompt.work.at(1.0), (prompt.rest or prompt.work).at(1.0)
    return ceil(rest / part) if part > 0 else 1
