"""Progress on a terminal, and in a log."""

import pytest

from service.commands import output


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(output, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(clock, capsys):
    with output.step_progress() as bar:
        first, second = bar.add_task("calibrating", total=1.0), bar.add_task("tuning", total=None)
        for step in range(100):
            clock[0] += 1
            bar.update(first, completed=step / 100)
        bar.update(second, total=12000, completed=10000, description="tuning, cosine 0.98")
        clock[0] += output.LOG_SECONDS
        bar.update(second, completed=10400)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "calibrating: 0.29 of 1",
        "calibrating: 0.59 of 1",
        "calibrating: 0.89 of 1",
        "tuning, cosine 0.98: 10400 of 12000",
    ]


def test_work_without_a_known_end_is_told_too(clock, capsys):
    with output.share_progress() as bar:
        task = bar.add_task("reading", total=None)
        clock[0] += output.LOG_SECONDS
        bar.update(task, completed=3)
        clock[0] += output.LOG_SECONDS
        bar.advance(task)
    assert capsys.readouterr().err.splitlines()[:2] == ["reading: 3", "reading: 4"]
