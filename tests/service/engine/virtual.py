"""The engine's rules in virtual time, on models whose run takes a number of seconds."""

from collections.abc import Callable, Iterable

from loadtest.simulation.simulator import Event, Lost, Outcome, Served, Simulation
from service.engine.hosted import HostedModel
from service.engine.request import Request
from tests.service.engine.fakes import MACS

__all__ = ["Lost", "Served", "learned", "simulate"]


def simulate(
    hosted: HostedModel,
    requests: Iterable[Request],
    seconds: Callable[[float], float],
    executors: int = 1,
    events: Iterable[Event] = (),
    queue_limit: int = 1024,
) -> list[Outcome]:
    """A run takes `seconds(share of the dense MACs done)` per item."""

    def run_time(context):
        return seconds(1 - context.macs_skipped_ratio) * context.macs / MACS

    return Simulation(hosted, run_time, executors, queue_limit).run(requests, events)


def learned(hosted: HostedModel, seconds: Callable[[float], float], macs: int, runs: int = 30) -> HostedModel:
    """The model after a warm-up at a few levels, as the engine gives it when it is loaded."""
    for _ in range(runs):
        for level in (0.0, 0.5, 1.0):
            share = hosted.profile.at(level).macs_ratio
            hosted.latency.observe(macs * share, seconds(share))
    hosted.typical_macs = macs
    return hosted
