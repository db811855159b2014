"""Servers that a benchmark starts: processes of their own, on a core of their own, gone when the block ends, or when
the benchmark does, however that ends."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from loadtest.driver import Address
from loadtest.keeper import STOP_SECONDS

_KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True, slots=True)
class Cores:
    """A core for the server and another for the load."""

    server: set[int]
    load: set[int]


class ServerFailed(RuntimeError):
    """The server ended, or did not get ready in time; the message has the last lines that it wrote."""


@contextmanager
def server(
    command: Sequence[str],
    ready_path: str,
    cores: set[int] | None = None,
    environment: Mapping[str, str] | None = None,
    start_seconds: float = 60.0,
) -> Iterator[Address]:
    """Runs `command`, in which `{port}` stands for a free port, until the block ends.

    Yields once a GET of `ready_path` is answered with 200. Settings of the user's own (`SLUICE_*`) do not reach it, and
    libraries use one thread each. Raises `ServerFailed`.
    """
    address = Address("127.0.0.1", free_port())
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w+b") as log, ExitStack() as running:
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        own |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "SLUICE_HOME": home, **(environment or {})}
        arguments = [part.replace("{port}", str(address.port)) for part in command]
        with on_cores(cores):
            process = running.enter_context(kept(arguments, log, own))
        _wait_until_ready(process, f"http://{address}{ready_path}", start_seconds, Path(log.name))
        yield address


@contextmanager
def kept(
    command: Sequence[str], log: IO[bytes], environment: Mapping[str, str], cores: set[int] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command` until the block ends. What it started ends with it, and all of it with this process.

    Yields the process that keeps it, which ends when the command does and with its status.
    """
    keeper = (sys.executable, str(_KEEPER), *command)
    with on_cores(cores):
        process = subprocess.Popen(
            keeper, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(1.5 * STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def on_cores(cores: set[int] | None) -> Iterator[None]:
    """The block, and the processes started in it, run on these cores only, where the system can do that."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> Cores | None:
    """The first and the last core that this process may use; None where there is only one, or no choice."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return Cores({cores[0]}, {cores[-1]}) if len(cores) > 1 else None


def free_port() -> int:
    """A loopback port that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with status {process.returncode}:\n{_tail(log)}")
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise ServerFailed(f"the server was not ready after {seconds:g} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
