import os
import shutil
from io import StringIO

import pytest
from rich.console import Console

from loadtest.benchmarks import overhead
from loadtest.benchmarks.overhead_phases import phases
from loadtest.benchmarks.overhead_server import Nothing
from tests.live import serve


def test_without_wrk_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(overhead.WrkMissing, match="apt-get install wrk"):
        overhead.measure(1.0, print)


@pytest.mark.skipif(
    shutil.which("wrk") is None or overhead.two_cores() is None, reason="needs wrk (apt-get install wrk) and two cores"
)
def test_a_short_run_serves_every_request_and_says_where_the_time_goes(monkeypatch):
    monkeypatch.setattr(overhead, "SERVERS", ("sluice", "empty"))
    monkeypatch.setattr(overhead, "CONNECTIONS", (4,))
    result = overhead.measure(1.0, lambda text: None)
    for loads in result.loads.values():
        for load in loads:
            assert load.rate > 0 and load.cpu_ms > 0
            assert load.p50_ms <= load.p99_ms
    assert result.loads["sluice"][0].failed == 0
    assert result.of_empty > 0
    assert 0 < result.metrics_share < 0.05
    assert 0 < result.console_share < 0.01
    printed = Console(record=True, width=120, file=StringIO())
    overhead.show(result, printed)
    assert f"metrics take {result.metrics_share:.2%}" in printed.export_text()


async def test_the_phases_are_those_of_a_request_that_the_server_takes(tmp_path):
    body, length = overhead._JSON.encode() + bytes(overhead.INPUT_BYTES), str(len(overhead._JSON))
    with serve([Nothing()], tmp_path) as live:
        answer = live.http.post(overhead.PATH, content=body, headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 200, answer.text
    parts = await phases(body, length, repeats=20)
    assert len({part.name for part in parts}) == len(parts) == 6
    assert all(part.seconds >= 0 for part in parts)


async def test_metrics_take_little_of_the_request():
    body, length = overhead._JSON.encode() + bytes(overhead.INPUT_BYTES), str(len(overhead._JSON))
    parts = {part.name: part.seconds for part in await phases(body, length, repeats=300)}
    # Without HTTP, which is half of a request: the bound of all of it is 2 %.
    assert parts[overhead.METRICS] <= 0.04 * sum(parts.values())


def test_the_processor_time_is_that_of_the_process():
    before = overhead.cpu_seconds(os.getpid())
    while overhead.cpu_seconds(os.getpid()) - before < 0.05:
        sum(range(10_000))
