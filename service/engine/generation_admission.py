"""A generation at the door: what it is planned to take and to be held to, and by how much it would be late."""

from collections.abc import Sequence
from math import ceil, inf

from models.model import Generator
from service.control.admission import plan
from service.control.generation import places, share_of_tokens
from service.control.generation_slo import GenerationSLO
from service.engine.generated_text import GeneratedText
from service.engine.generation import GenerationRequest
from service.engine.generation_entry import GenerationEntry
from service.engine.generation_forecast import Forecast, parts_of
from service.engine.hosted import HostedModel
from service.engine.sampling import Sampler
from service.engine.stream import Stream
from service.errors import Refused


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
    target = plan(asked, forecast.prompt_alone(least))
    timeout, room = options.common.timeout_us, hosted.model.context_length - prompt
    macs = prompt * forecast.macs_in_prompt
    return GenerationEntry(
        request=request,
        hosted=hosted,
        stream=stream,
        slo=slo,
        ceiling=ceiling,
        first_due=request.arrival + target.latency,
        due=request.arrival + target.planned,
        token=token,
        attainable=target.attainable and forecast.token_alone(ceiling) <= token,
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
) -> float:
    """Seconds by which its first token is too late at the ceiling, as things stand, below 0 where it is not. `before`
    are those that wait and are more urgent, `most` how many may run at once.
    """
    pace, work = forecast.pace(margin), forecast.token()
    token = min((other.token for other in running), default=entry.token)
    prompts = sum(other.least for other in before)
    prompts += sum(other.turn(now, forecast).least for other in running if other.in_prompt)
    wait = prompts / executors
    room = min(most, places(min(token, entry.token), work, entry.ceiling, pace, executors))
    behind = len(running) + len(before) + 1 - room
    if behind > 0:
        # Places come free one after the other, as those that run come to their ends.
        wait = max(wait, behind * forecast.duration(ceil(room / executors), token) / room)
    share = share_of_tokens(len(running), token, work, entry.ceiling, pace, executors)
    own = entry.least * forecast.prompts.tail_ratio
    return now + margin * (wait + own) / (1 - share) - entry.first_due


def refuse(name: str, entry: GenerationEntry, late: float, waiting: int, full: bool) -> Refused:
    """What to answer for a generation that would be `late` seconds late, or finds the queue `full`."""
    retry = max(ceil(late), 1)
    ceiling = f"even at level {entry.ceiling.level:.2f} ({entry.ceiling.reason})"
    why = (
        f"{waiting} wait, the most that may" if full else f"{ceiling} its first token would be {late * 1e3:.0f} ms late"
    )
    return Refused(f"{name!r} is overloaded: {why}; come back in {retry} s", retry)
