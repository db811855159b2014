import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from loadtest.processes import ServerFailed, on_cores, server, two_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
HTTP = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")


def test_a_server_is_ready_in_the_block_and_gone_after_it():
    with server(HTTP, "/") as address:
        assert httpx.get(f"http://{address}/").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/")


LEAVES_A_DAEMON = """
import os, pathlib, runpy, subprocess, sys
sleeps = (
    "import os, sys, time; os.fork() and os._exit(0); os.setsid();"
    "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
)
port, pid = sys.argv[1:]
subprocess.run([sys.executable, "-c", sleeps, pid])
sys.argv = ["http.server", "--bind", "127.0.0.1", port]
runpy.run_module("http.server", run_name="__main__")
"""
"""A server that starts a process of a session of its own, whose parent ends: neither parent nor group leads to it."""

BENCHMARK = """
import pathlib, signal, sys, time
from loadtest.processes import server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without
*command, ready = sys.argv[1:]
with server(command, "/"):
    pathlib.Path(ready).write_text("ready")
    time.sleep(60)
"""


def test_what_a_server_leaves_behind_ends_with_it(tmp_path):
    pid = tmp_path / "pid"
    with server((sys.executable, "-c", LEAVES_A_DAEMON, "{port}", str(pid)), "/"):
        daemon = _pid(pid)
        os.kill(daemon, 0)
    _wait_until(lambda: not _runs(daemon))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_end_with_their_benchmark(tmp_path, how):
    pid, ready = tmp_path / "pid", tmp_path / "ready"
    command = [sys.executable, "-c", LEAVES_A_DAEMON, "{port}", str(pid)]
    benchmark = subprocess.Popen([sys.executable, "-c", BENCHMARK, *command, str(ready)], stderr=subprocess.DEVNULL)
    try:
        _wait_until(ready.exists)
        servers = [*_children(benchmark.pid), _pid(pid)]
        assert len(servers) > 1
    finally:
        benchmark.send_signal(how)
        benchmark.wait(20)
    _wait_until(lambda: not any(_runs(server) for server in servers))


def _children(parent: int) -> list[int]:
    """Those of `parent`, and theirs."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    own = [int(child) for child in listed.read_text().split()]
    return [*own, *(pid for child in own for pid in _children(child))]


def _pid(file: Path) -> int:
    _wait_until(lambda: file.exists() and file.read_text() != "")
    return int(file.read_text())


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    """A process that ended stays in the table until its new parent looks at it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_ends_says_why():
    with (
        pytest.raises(ServerFailed, match=r"status 3:\nout of paper"),
        server((sys.executable, "-c", "import sys; print('out of paper'); sys.exit(3)"), "/"),
    ):
        pass


def test_a_server_that_does_not_get_ready():
    with pytest.raises(ServerFailed, match="not ready"), server(HTTP, "/nowhere", start_seconds=0.5):
        pass


@pytest.mark.skipif(two_cores() is None, reason="needs two cores")
def test_cores_are_given_back():
    before = os.sched_getaffinity(0)
    cores = two_cores()
    with on_cores(cores.load):
        assert os.sched_getaffinity(0) == cores.load
    assert os.sched_getaffinity(0) == before
    assert cores.load.isdisjoint(cores.server)
