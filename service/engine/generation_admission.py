"""A generation at the door: what it is planned to take and to be held to, and by how much it would be late."""

from collections.abc import Sequence
from math import ceil, inf

from models.model import Generator
from service.control.admission import plan
from service.control.generation import places, tokens_until
from service.control.generation_slo import GenerationSLO
from service.engine.generated_text import GeneratedText
from service.engine.generation import GenerationRequest
from service.engine.generation_entry import GenerationEntry
from service.engine.generation_forecast import Forecast, parts_of
from service.engine.hosted import HostedModel
from service.engine.sampling import Sampler
from service.engine.stream import Stream
from service.errors import Refused

_PAST_LENGTH = 0.25


def plan_generation(
    hosted: HostedModel, forecast: Forecast, request: GenerationRequest, now: float, stream: Stream | None
) -> GenerationEntry:
    """The entry of a request, with the SLO and the ceiling of `now`."""
    options, slo, prompt = request.options, hosted.slo, len(request.tokens)
    assert isinstance(slo, GenerationSLO) and isinstance(hosted.model, Generator)
    ceiling = hosted.ceiling(options.common.quality_floor, options.common.level)
    least = forecast.prompt(prompt, ceiling)
    asked = slo.latency if options.first_token_ms is None else options.first_token_ms / 1e3
    token = slo.token if options.token_ms is None else options.token_ms / 1e3
    target, tokens = plan(asked, forecast.prompt_alone(least)), plan(token, forecast.token_alone(ceiling))
    # Those of one request come after one another, where they find no place together.
    turns = request.number + 1
    timeout, room = options.common.timeout_us, hosted.model.context_length - prompt
    macs = prompt * forecast.macs_in_prompt
    return GenerationEntry(
        request=request,
        hosted=hosted,
        stream=stream,
        slo=slo,
        ceiling=ceiling,
        first_due=request.arrival + turns * target.latency,
        due=request.arrival + target.planned,
        token=token,
        # What cannot be kept is missed by as little as the ceiling allows.
        pace=tokens.planned if tokens.attainable else forecast.token_least(ceiling),
        allowed=tokens.latency,
        keeps_pace=tokens.attainable,
        attainable=target.attainable and tokens.attainable,
        prompt_macs=macs,
        least=least,
        admitted=now,
        expires=request.arrival + timeout / 1e6 if timeout else inf,
        asked=asked,
        most_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
        text=GeneratedText(request.stops),
        sampler=Sampler(request.sampling),
        next_macs=macs / max(parts_of(prompt), 1),
    )


def late_by(
    now: float,
    entry: GenerationEntry,
    running: Sequence[GenerationEntry],
    before: Sequence[GenerationEntry],
    forecast: Forecast,
    margin: float,
    executors: int,
    most: int,
    free_in: float,
) -> float:
    """Seconds by which its first token is too late at the ceiling, as things stand, below 0 where it is not. `running`
    are those that do not pause, `before` those that wait and are more urgent, `most` how many may run at once, and
    `free_in` the seconds until an executor has nothing to do for other models.
    """
    pace, work = forecast.pace(margin), forecast.token()
    token = min((other.allowed for other in running), default=entry.allowed)
    prompts = sum(other.least for other in before)
    prompts += sum(other.turn(now, forecast).least for other in running if other.in_prompt)
    tokens = [other for other in running if not other.in_prompt]
    works = tokens_until(entry.first_due - now, [other.turn(now, forecast) for other in tokens], pace)
    ratios = [*(other.ceiling.macs_ratio for other in tokens), 1.0]
    wait = (prompts + sum(each.at(ratio) for each, ratio in zip(works, ratios, strict=True))) / executors
    room = min(most, places(min(token, entry.allowed), work, entry.ceiling, pace, executors))
    behind = len(running) + len(before) + 1 - room
    if behind > 0:
        each = forecast.token_seconds(ceil(room / executors), token)
        wait = max(wait, each * tokens_until_free(behind, running, forecast.length))
    own = entry.least * forecast.prompts.tail_ratio
    return now + free_in + margin * (wait + own) - entry.first_due


def tokens_until_free(behind: int, running: Sequence[GenerationEntry], length: float) -> float:
    """After how many more tokens of each generation so many places have come free, where those that follow make
    `length` tokens. One that is past the usual length is expected to go on for a part of what it has made: the longer
    it is, the longer it will be."""
    left = sorted(
        min(
            other.most_tokens - other.generated,
            max(length - other.generated, max(length, other.generated) * _PAST_LENGTH),
        )
        for other in running
    )
    if not left:
        return 0.0
    rounds, place = divmod(behind - 1, len(left))
    return left[place] + rounds * length


def refuse(name: str, entry: GenerationEntry, late: float, waiting: int, full: bool) -> Refused:
    """What to answer for a generation that would be `late` seconds late, or finds the queue `full`."""
    retry = max(ceil(late), 1)
    ceiling = f"even at level {entry.ceiling.level:.2f} ({entry.ceiling.reason})"
    why = (
        f"{waiting} wait, the most that may" if full else f"{ceiling} its first token would be {late * 1e3:.0f} ms late"
    )
    return Refused(f"{name!r} is overloaded: {why}; come back in {retry} s", retry)
