import os
import sys

import httpx
import pytest

from loadtest.processes import ServerFailed, on_cores, server, two_cores

HTTP = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")


def test_a_server_is_ready_in_the_block_and_gone_after_it():
    with server(HTTP, "/") as address:
        assert httpx.get(f"http://{address}/").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/")


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
