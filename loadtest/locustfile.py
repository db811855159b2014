"""The same load tests in locust, for its page and its charts: `locust -f loadtest/locustfile.py`.

Locust's users are a closed loop: a slow server would slow them down. Here they are only the connections. What arrives
when comes from a load shape or a trace; each arrival is taken by the next free user, and its response time is counted
from when it was due. When all users are busy arrivals wait, and their response times say so.

    locust -f loadtest/locustfile.py                       # then open http://localhost:8089, choose the shape there
    locust -f loadtest/locustfile.py --headless --shape spike --rate 100 --seconds 60 --summary result.json
    locust -f loadtest/locustfile.py --headless --shape trace --trace-file loadtest/traces/gamma-cv4.trace \\
        --slo-event 30:latency_ms=5

The driver (`python -m loadtest`) is more precise, since a greenlet's request costs several times as much.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
import orjson
from httpx import HTTPError
from locust import FastHttpUser, LoadTestShape, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from rich.console import Console
from rich.markup import escape

from loadtest.report import summary_table
from loadtest.running import Arrival, Running
from loadtest.script import Event, Script, parse_event
from loadtest.shapes import SHAPES, Load
from loadtest.slo_client import SloClient
from loadtest.workload import Images, Reply, Workload, load_workload
from models.zoo import fashion_data

DEFAULT_HOST = "http://127.0.0.1:8000"
START_DELAY = 1.0
"""Seconds in which locust starts its users, before the first arrival."""


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """These are on the command line and in the form of locust's page."""
    parser.add_argument("--shape", choices=SHAPES, default="steady", help="Load shape")
    parser.add_argument("--rate", type=float, default=50.0, help="Arrivals per second")
    parser.add_argument("--peak", type=float, default=0.0, help="Highest rate of the shape; 0: twice the rate")
    parser.add_argument("--seconds", type=float, default=60.0, help="Length of the test")
    parser.add_argument("--variation", type=float, default=1.0, help="Coefficient of variation of gaps; 1 is Poisson")
    parser.add_argument("--seed", type=int, default=0, help="The same seed makes the same arrivals")
    parser.add_argument("--trace-file", default="", help="Trace file, for the shape 'trace'")
    parser.add_argument("--speed", type=float, default=1.0, help="Replay the trace this many times as fast")
    parser.add_argument("--connections", type=int, default=64, help="Users, each of which is a connection")
    parser.add_argument("--slo-event", default="", help="SLO changes: 30:latency_ms=5;60:latency_ms=50")
    parser.add_argument("--workload", default="", help="package.module:function that makes another workload")
    parser.add_argument("--summary", default="", help="Write the result to this JSON file")
    parser.add_argument(
        "--admin-token", default="", env_var="SLUICE_ADMIN_TOKEN", is_secret=True, help="The server's admin token"
    )


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Makes the arrivals anew for each test, so that the page's form counts."""
    if environment.runner is not None and type(environment.runner).__name__ != "LocalRunner":
        raise SystemExit("arrivals come from one schedule: run locust without workers")
    options = environment.parsed_options
    assert options is not None
    load = Load(
        options.shape,
        options.rate,
        options.peak or None,
        options.seconds,
        options.variation,
        options.seed,
        Path(options.trace_file) if options.trace_file else None,
        options.speed,
    )
    workload: Workload = load_workload(options.workload) if options.workload else Images(fashion_data.sample())
    client = SloClient(environment.host or DEFAULT_HOST, workload.model, options.admin_token or None)
    script = Script(client.read()).with_events(parse_event(text) for text in options.slo_event.split(";") if text)
    arrivals = arrivals_of(environment)
    arrivals.running = Running(load.trace(), workload, script, START_DELAY)
    arrivals.events = [
        gevent.spawn_later(START_DELAY + event.at, _change, environment, client, event) for event in script.events
    ]


@events.test_stop.add_listener
def stop(environment: Environment, **_: Any) -> None:
    """Prints the result, and writes it where that was asked for."""
    arrivals, options = arrivals_of(environment), environment.parsed_options
    # Those still to come belong to this test, not to the next.
    gevent.killall(arrivals.events, block=False)
    running = arrivals.running
    if running is None or options is None:
        return
    summary = running.summary()
    Console(stderr=True, width=max(Console().width, 110)).print(summary_table(summary))
    if options.summary:
        Path(options.summary).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))


class Arrivals(LoadTestShape):
    """All connections at once, until the schedule is over: the load's shape is in the arrivals."""

    abstract = False
    running: Running | None = None
    events: Sequence[gevent.Greenlet] = ()

    def reset_time(self) -> None:
        """Locust calls it before each test, and `start` after the first tick."""
        super().reset_time()
        self.running = None

    def tick(self) -> tuple[int, float] | None:
        if self.running is not None and self.running.over:
            return None
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        return options.connections, options.connections


def arrivals_of(environment: Environment) -> Arrivals:
    """The one shape of this file, which holds the test that is running."""
    shape = environment.shape_class
    assert isinstance(shape, Arrivals)
    return shape


class ImageUser(FastHttpUser):
    """A connection that takes the next arrival, waits until it is due, and sends it."""

    host = DEFAULT_HOST
    network_timeout = 10.0
    connection_timeout = 10.0

    @task
    def serve_next(self) -> None:
        running = arrivals_of(self.environment).running
        arrival = running.take() if running is not None else None
        if running is None or arrival is None:
            raise StopUser
        gevent.sleep(max(0.0, arrival.due - running.now()))
        self._send(running, arrival)

    def _send(self, running: Running, arrival: Arrival) -> None:
        post, sent = running.post(arrival), running.now()
        with self.client.post(post.path, data=post.body, headers=post.headers, catch_response=True) as response:
            headers = {name.lower(): value for name, value in (response.headers or {}).items()}
            content = response.content or b""
            sample = running.record(arrival, sent, Reply(response.status_code, headers, content))
            response.request_meta["response_time"] = 1e3 * sample.latency
            if sample.outcome == "ok":
                response.success()
            else:
                response.failure(sample.outcome)


def _change(environment: Environment, client: SloClient, event: Event) -> None:
    """A test whose SLO is not the one that its arrivals are judged with says nothing, so it ends."""
    try:
        client.change(event.changes)
    except HTTPError as error:
        Console(stderr=True).print(f"[bold red]error:[/] the SLO could not be changed: {escape(str(error))}")
        assert environment.runner is not None
        environment.process_exit_code = 2
        gevent.spawn(environment.runner.quit)
