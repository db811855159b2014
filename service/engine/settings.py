"""Settings of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.control.generation_slo import GenerationSLO, Objective
from service.control.slo import SLO
from service.control.speech_slo import SpeechSLO
from service.engine.cores import usable_cores


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`slos` holds the SLO that a model starts with, `default_slo` that of the models not in it; of the language models
    among them it is `default_generation_slo`, of those of speech `default_speech_slo`. One kept by the store goes
    before these.

    `executors` run one model each at a time: one per core by default. Each has `threads`, one by default, which share
    the larger products of its run; there are never more of all of them than cores. `queue_limit` bounds the requests of
    one model that wait. A run longer than `hang_seconds`, and than ten times what was expected, is given up and its
    executor replaced. `warmup_runs` is the number of runs at each of a few levels that a model does when it is loaded,
    from which its latency is first known. `shadow_share` of gated requests, 0 to 1, are run again dense when there is
    nothing else to do. Of a language model at most `generations` run at once; one whose reader is `unread_limit` pieces
    behind pauses until it reads on.
    """

    executors: int = field(default_factory=usable_cores)
    threads: int = 1
    queue_limit: int = 1024
    hang_seconds: float = 30.0
    warmup_runs: int = 3
    shadow_share: float = 0.01
    default_slo: SLO = field(default_factory=lambda: SLO(latency_ms=50.0))
    default_generation_slo: GenerationSLO = field(
        default_factory=lambda: GenerationSLO(first_token_ms=2000.0, token_ms=100.0)
    )
    default_speech_slo: SpeechSLO = field(default_factory=lambda: SpeechSLO(latency_ms=1000.0, audio_second_ms=100.0))
    slos: Mapping[str, Objective] = field(default_factory=dict)
    generations: int = 16
    unread_limit: int = 64

    def __post_init__(self) -> None:
        if self.executors < 1:
            raise ValueError(f"executors must be at least 1, got {self.executors}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.threads > 1 and self.executors * self.threads > usable_cores():
            wanted = f"{self.executors} executors of {self.threads} threads"
            raise ValueError(f"threads must leave a core to each: {wanted} are more than the {usable_cores()} cores")
        if self.queue_limit < 1:
            raise ValueError(f"queue_limit must be at least 1, got {self.queue_limit}")
        if self.generations < 1:
            raise ValueError(f"generations must be at least 1, got {self.generations}")
        if self.unread_limit < 1:
            raise ValueError(f"unread_limit must be at least 1, got {self.unread_limit}")
        if self.hang_seconds <= 0:
            raise ValueError(f"hang_seconds must be above 0, got {self.hang_seconds}")
        if not 0 <= self.shadow_share <= 1:
            raise ValueError(f"shadow_share must be between 0 and 1, got {self.shadow_share}")
