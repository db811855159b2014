import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.gating.primitives import keep_neurons, keep_weights

VALUES = arrays(np.float32, (6, 4), elements=st.floats(-2, 2, width=32))
THRESHOLDS = st.floats(0, 2, width=32)


@given(VALUES, THRESHOLDS)
def test_keeps_neurons_above_the_threshold(values, threshold):
    kept = keep_neurons(values, threshold)
    assert (kept[values > threshold] == values[values > threshold]).all()
    assert (kept[values <= threshold] == 0).all()


@given(VALUES, THRESHOLDS)
def test_keeps_weights_by_magnitude(weights, threshold):
    kept = keep_weights(weights, threshold)
    large = np.abs(weights) > threshold
    assert (kept[large] == weights[large]).all()
    assert (kept[~large] == 0).all()


@pytest.mark.parametrize("keep", [keep_neurons, keep_weights])
def test_a_value_at_the_threshold_is_not_kept(keep):
    assert keep(np.array([0.5]), 0.5) == [0]


def test_a_strongly_negative_weight_is_kept_where_a_neuron_is_not():
    assert keep_weights(np.array([-3.0]), 1) == [-3]
    assert keep_neurons(np.array([-3.0]), 1) == [0]
