import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.curve import Span, spike, steady
from loadtest.shapes import SHAPES, Load
from loadtest.trace import InvalidTrace, Trace, generate, load, save
from loadtest.traces import FOLDER, MADE, make

SMALL = spike(base=20, peak=200, before=2, seconds=1, after=2)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]))
def test_arrivals_are_in_order_and_inside(seed, variation):
    try:
        trace = generate("t", SMALL, seed, variation)
    except InvalidTrace:
        assert variation == 4  # a clump may be followed by a gap longer than the trace
        return
    assert (np.diff(trace.times) >= 0).all()
    assert 0 <= trace.times[0] <= trace.times[-1] < trace.seconds == 5


def test_a_seed_makes_the_same_trace_and_another_seed_another():
    first, again, other = (generate("t", SMALL, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.times, again.times)
    assert first.times.tolist() != other.times.tolist()


@pytest.mark.parametrize("variation", [0.0, 1.0, 2.0, 4.0])
def test_gaps_have_the_mean_and_variation_asked_for(variation):
    gaps = np.diff(generate("t", steady(100, 2000), 3, variation).times)
    assert gaps.mean() == pytest.approx(0.01, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05, abs=1e-9)


def test_arrivals_follow_the_curve():
    trace = generate("t", spike(base=100, peak=1000, before=50, seconds=10, after=50), 1)
    counts = {name: trace.phase_of(trace.times).count(name) for name in ("before", "spike", "after")}
    assert counts == {
        "before": pytest.approx(5000, rel=0.05),
        "spike": pytest.approx(10_000, rel=0.05),
        "after": pytest.approx(5000, rel=0.05),
    }


@given(st.lists(st.floats(0, 59.9), min_size=1, max_size=30))
def test_a_file_holds_the_trace(tmp_path_factory, times):
    trace = Trace("t", np.array(sorted(times)), (Span("calm", 0, 30), Span("burst", 30, 60)))
    path = tmp_path_factory.mktemp("traces") / "t.trace"
    save(trace, path, seed=4)
    read = load(path)
    assert (read.name, read.spans) == (trace.name, trace.spans)
    np.testing.assert_allclose(read.times, trace.times, atol=1.01e-4)
    assert (read.times <= trace.times + 1e-12).all()


def test_a_file_of_times_alone_is_a_trace(tmp_path):
    path = tmp_path / "mine.trace"
    path.write_text("0.5\n1.5\n\n4\n")
    trace = load(path)
    assert trace.times.tolist() == [0.5, 1.5, 4]
    assert trace.name == "mine"
    assert set(trace.phase_of(trace.times)) == {"all"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "1\nx\n",
        "2\n1\n",
        "-1\n",
        "nan\n",
        "1e9\n",
        "# {nothing\n1\n",
        "# []\n1\n",
        '# {"phases": [["a", 0]]}\n1\n',
        '# {"phases": [["a", 0, 1]]}\n2\n',
    ],
)
def test_files_that_are_no_trace(tmp_path, content):
    path = tmp_path / "t.trace"
    path.write_text(content)
    with pytest.raises(InvalidTrace):
        load(path)


def test_a_trace_too_long_is_not_made():
    with pytest.raises(InvalidTrace, match="limit"):
        generate("t", steady(1e6, 3600), 0)
    with pytest.raises(InvalidTrace):
        generate("t", steady(1, 10), 0, variation=-1)


def test_faster():
    trace = generate("t", SMALL, 1).faster(2)
    assert trace.seconds == 2.5
    assert trace.rate == pytest.approx(2 * generate("t", SMALL, 1).rate)
    assert [span.start for span in trace.spans] == [0, 1, 1.5]
    with pytest.raises(InvalidTrace):
        trace.faster(0)


def test_a_phase_begins_at_its_start():
    trace = generate("t", SMALL, 1)
    assert trace.phase_of(np.array([0.0, 1.999, 2.0, 2.999, 3.0, 99.0])) == [
        "before",
        "before",
        "spike",
        "spike",
        "after",
        "after",
    ]


@pytest.mark.parametrize("name", MADE)
def test_shipped_traces_are_small_and_what_the_command_makes(name):
    path = FOLDER / f"{name}.trace"
    assert path.stat().st_size <= 100_000
    np.testing.assert_allclose(load(path).times, make(name).times, atol=1.01e-4)
    assert load(path).spans == make(name).spans


def test_no_other_traces_are_shipped():
    assert {path.stem for path in FOLDER.glob("*.trace")} == set(MADE)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "trace"])
def test_every_shape_makes_a_trace_of_its_length(shape):
    trace = Load(shape, rate=40, seconds=20).trace()
    assert trace.seconds == pytest.approx(20)
    assert trace.rate >= 30


def test_a_shape_that_replays_a_file():
    trace = Load("trace", file=FOLDER / "poisson.trace", speed=2).trace()
    assert trace.seconds == 60
    with pytest.raises(ValueError, match="file"):
        Load("trace").trace()
