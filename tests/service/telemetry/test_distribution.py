from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.telemetry.distribution import Distribution

BOUNDS = (0.00025, 0.001, 0.01, 1.0)


@given(st.lists(st.floats(0, 2) | st.sampled_from(BOUNDS)))
def test_it_counts_as_the_client_library_does(times):
    ours, registry = Distribution(BOUNDS), CollectorRegistry()
    theirs = Histogram("t", "", buckets=BOUNDS, registry=registry)
    for seconds in times:
        ours.add(seconds)
        theirs.observe(seconds)
    for le, count in ours.buckets():
        assert registry.get_sample_value("t_bucket", {"le": le}) == count
    assert registry.get_sample_value("t_sum") == ours.sum
    assert registry.get_sample_value("t_count") == len(times)
