import os
import sys
import time
from pathlib import Path

import httpx
import pytest

from loadtest.processes import ServerFailed, on_cores, server, two_cores

HTTP = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")


def test_a_server_is_ready_in_the_block_and_gone_after_it():
    with server(HTTP, "/") as address:
        assert httpx.get(f"http://{address}/").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/")


def test_what_a_server_leaves_behind_ends_with_it(tmp_path):
    pid = tmp_path / "pid"
    script = (
        "import subprocess, sys, pathlib, runpy\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid))\n"
        "sys.argv = ['http.server', '--bind', '127.0.0.1', sys.argv[1]]\n"
        "runpy.run_module('http.server', run_name='__main__')\n"
    )
    with server((sys.executable, "-c", script, "{port}"), "/"):
        child = int(pid.read_text())
        os.kill(child, 0)
    for _ in range(50):
        if not _runs(child):
            return
        time.sleep(0.02)
    raise AssertionError("the server's own child process outlived it")


def _runs(pid: int) -> bool:
    """A process that ended stays in the table until its new parent looks at it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")


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
