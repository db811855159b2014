"""`sluice bench slo`: the same model under the same bursts, with its dial free, pinned dense, dense with admission
control, always at the quality floor, and behind other servers.

The server has one core and the load another. First the dense server's capacity is measured; the load, the bursts and
the SLO are multiples of it. Every arrival counts, by the clock of the client, from when it was due. A run during which
the machine's own speed changed is repeated.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from loadtest.benchmarks.contender import Contender, Say, Start, calibrate
from loadtest.benchmarks.journal import Journal
from loadtest.benchmarks.slo_plan import Mode, Plan, after_bursts, capacity_share, modes
from loadtest.benchmarks.slo_series import series
from loadtest.benchmarks.slo_subject import Subject
from loadtest.benchmarks.steady import SteadyRuns
from loadtest.driver import DriverSettings, replay
from loadtest.processes import on_cores, two_cores
from loadtest.summary import figures, summarise
from service.control.objective import objective_of
from service.control.slo import SLO

_CONNECTIONS = 1024
_START_SECONDS = 8
"""About what it takes to start a server and to end it."""


def compare(
    plan: Plan,
    subject: Subject,
    start: Start,
    peers: Sequence[Contender] = (),
    say: Say = lambda _: None,
    journal: Journal | None = None,
) -> dict[str, Any]:
    """Runs everything that the journal does not have yet; `say` hears of the progress. `start` starts this server, with
    the subject's model.

    The load has a core to itself where there are two. A contender that fails has its reason in place of a result.
    Raises `ServerFailed` or `RuntimeError` where this server does not serve, `ValueError` for a journal of another
    plan.
    """
    journal = journal or Journal()
    failures = _prepare(peers, say)
    dense = subject.workload({"level": 0.0})
    cores = two_cores()
    with on_cores(cores.load if cores else None):
        about = journal.begin({"model": subject.model, **plan.as_dict()}, lambda: _measure(plan, subject, start, say))
        steady = SteadyRuns(
            lambda: calibrate(start, dense, plan.check_seconds).capacity / about["capacity"],
            plan.tolerance,
            plan.repeats,
        )
        ours = modes(_slo(about), about["floor"]["level"])
        contenders = [*(_contender(mode, start, subject) for mode in ours), *peers]
        todo = [
            (overload, contender)
            for overload in plan.overloads
            for contender in contenders
            if not journal.has(contender.name, overload)
        ]
        left = sum(_seconds(plan, overload) for overload, _ in todo)
        say(f"{len(contenders)} servers, bursts to {', '.join(f'{o:g}×' for o in plan.overloads)}: {minutes(left)}")
        for number, (overload, contender) in enumerate(todo, 1):
            say(f"{number}/{len(todo)} {contender.name}, bursts to {overload:g}×, {minutes(left)} left")
            failure = failures.get(contender.name)
            result = {"failed": failure} if failure else _attempt(contender, overload, plan, about, steady, say)
            journal.add({"server": contender.name, "overload": overload, **result})
            left -= _seconds(plan, overload)
            say(f"    {result['failed']}" if "failed" in result else f"    {result['attainment']:.2%} within the SLO")
    order = {contender.name: at for at, contender in enumerate(contenders)}
    runs = sorted(journal.runs, key=lambda run: (run["overload"], order.get(run["server"], len(order))))
    return {**about, "runs": runs}


def run(contender: Contender, overload: float, plan: Plan, capacity: float, slo: SLO) -> dict[str, Any]:
    """One server under one trace, in a process that did nothing before but warm up; judged by `slo`."""
    trace = plan.trace(capacity, overload)
    with contender.start() as address:
        alone_ms = contender.warm_up(address, plan.warm_up_seconds)
        settings = DriverSettings(connections=_CONNECTIONS, spin=True)
        samples = asyncio.run(replay(address, trace, contender.workload, settings))
    return {
        **summarise(trace, samples, lambda _: slo),
        "after_bursts": figures(after_bursts(trace, samples), lambda _: slo),
        "alone_ms": alone_ms,
        "series": series(trace, samples),
    }


def minutes(seconds: float) -> str:
    """A length of time as people say it."""
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def _prepare(peers: Sequence[Contender], say: Say) -> dict[str, str]:
    """Gets the peers ready before anything is measured; the reasons of those that cannot be."""
    failures = {}
    for peer in peers:
        try:
            peer.prepare(say)
        except RuntimeError as error:
            failures[peer.name] = str(error)
    return failures


def _measure(plan: Plan, subject: Subject, start: Start, say: Say) -> dict[str, Any]:
    floor = subject.floor
    say(f"measuring the dense server's capacity, {minutes(2 * plan.calibration_seconds)}")
    calibration = calibrate(start, subject.workload({"level": 0.0}), plan.calibration_seconds)
    shares = {o: capacity_share(plan.curve(calibration.capacity, o), calibration.capacity) for o in plan.overloads}
    return {
        "capacity": calibration.capacity,
        "service_ms": calibration.service_ms,
        "score": subject.score,
        "slo": subject.slo(plan.slo_factor * calibration.service_ms, plan.percentile, floor.quality).as_dict(),
        "floor": {"quality": floor.quality, "level": floor.level, "accuracy": floor.accuracy},
        "capacity_share": {f"{overload:g}": share for overload, share in shares.items()},
    }


def _attempt(
    contender: Contender, overload: float, plan: Plan, about: dict[str, Any], steady: SteadyRuns, say: Say
) -> dict[str, Any]:
    try:
        return steady.of(lambda: run(contender, overload, plan, about["capacity"], _slo(about)), say)
    except Exception as error:  # Whatever is wrong with one server, the results of the others count.
        return {"failed": f"{error}" or type(error).__name__}


def _contender(mode: Mode, start: Start, subject: Subject) -> Contender:
    return Contender(mode.name, start, subject.workload(mode.parameters), mode.slo)


def _slo(about: dict[str, Any]) -> SLO:
    slo = objective_of(about["slo"])
    assert isinstance(slo, SLO)
    return slo


def _seconds(plan: Plan, overload: float) -> float:
    one_run = _START_SECONDS + plan.warm_up_seconds + plan.curve(1.0, overload).seconds
    return one_run + _START_SECONDS + 2 * plan.check_seconds
