import os

import pytest

from service.engine.cores import usable_cores
from service.engine.settings import EngineSettings

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000\n", CORES),
        ("100000 100000\n", 1),
        ("10000 100000\n", 1),
        ("100001 100000\n", min(2, CORES)),
        ("99900000 100000\n", CORES),
        ("", CORES),
        ("100000 0\n", CORES),
    ],
)
def test_a_containers_limit_is_kept(tmp_path, limit, cores):
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    assert usable_cores(file) == cores


def test_without_a_limit_it_is_the_cores_that_the_process_may_run_on(tmp_path):
    assert usable_cores(tmp_path / "nothing") == CORES
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores(tmp_path / "nothing") == 1
    finally:
        os.sched_setaffinity(0, before)


def test_an_executor_per_core_is_the_default():
    assert EngineSettings().executors == usable_cores()
    assert EngineSettings(executors=5).executors == 5
