import pytest

from loadtest.benchmarks.steady import SteadyRuns, unsteadiness


def steady_runs(*speeds: float, repeats: int = 1) -> SteadyRuns:
    left = iter(speeds)
    return SteadyRuns(lambda: next(left), tolerance=0.1, repeats=repeats)


def runs(*results: float):
    left = iter(results)
    return lambda: {"attainment": next(left)}


def test_a_steady_machine_runs_once_and_is_measured_once_between_two_runs():
    steady = steady_runs(1.0, 0.95, 1.05)
    said: list[str] = []
    assert steady.of(runs(0.9), said.append) == {"attainment": 0.9, "speed": [1.0, 0.95], "attempts": 1}
    assert steady.of(runs(0.8), said.append) == {"attainment": 0.8, "speed": [0.95, 1.05], "attempts": 1}
    assert not said


def test_a_run_on_another_machine_is_repeated():
    said: list[str] = []
    found = steady_runs(1.0, 0.7, 1.0, 1.0, repeats=2).of(runs(0.5, 0.6, 0.99), said.append)
    assert found == {"attainment": 0.99, "speed": [1.0, 1.0], "attempts": 3}
    assert len(said) == 2
    assert "1.00 before and 0.70 after" in said[0]


@pytest.mark.parametrize("results", [(0.5, 0.99), (0.99, 0.5)])
def test_the_steadiest_counts_whatever_it_showed(results):
    found = steady_runs(0.8, 0.8, 0.6, repeats=1).of(runs(*results), lambda _: None)
    assert (found["attainment"], found["speed"], found["attempts"]) == (results[0], [0.8, 0.8], 2)


def test_after_a_failure_the_speed_is_measured_anew():
    steady = steady_runs(1.0, 0.95, 1.0)

    def fails() -> dict[str, float]:
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        steady.of(fails, lambda _: None)
    assert steady.of(runs(0.9), lambda _: None)["speed"] == [0.95, 1.0]


def test_unsteadiness():
    assert unsteadiness([1.0, 0.75]) == 0.25
    assert unsteadiness([1.5, 0.75]) == 0.5
