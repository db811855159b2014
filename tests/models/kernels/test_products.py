"""The gated convolution and matrix product against the float64 reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import Case, convolutions, products

every_instruction_set = pytest.mark.parametrize("instruction_set", kernels.instruction_sets())


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(case=convolutions())
def test_convolution_is_the_reference(instruction_set, case):
    case.check(instruction_set)


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(case=products())
def test_matrix_product_is_the_reference(instruction_set, case):
    case.check(instruction_set)


def layer(positions=7, n_inputs=70, n_outputs=130, **changes):
    random = np.random.default_rng(7)
    plain = {
        "x": random.standard_normal((positions, positions, n_inputs), dtype=np.float32),
        "weight": random.standard_normal((n_outputs, n_inputs, 3, 3), dtype=np.float32),
        "stride": 1,
        "padding": 1,
        "inputs": None,
        "outputs": None,
        "scale": None,
        "shift": None,
        "saliency": None,
        "residual": None,
        "activation": "none",
    }
    return Case(**plain | changes)


@every_instruction_set
@pytest.mark.parametrize(("positions", "inputs", "outputs"), [(28, 1, 32), (14, 64, 160), (7, 160, 352)])
def test_shapes_of_the_image_network(instruction_set, positions, inputs, outputs):
    layer(positions, inputs, outputs).check(instruction_set)


@every_instruction_set
def test_a_list_of_all_channels_is_the_same_as_no_list(instruction_set):
    every = layer(inputs=np.arange(70, dtype=np.int32), outputs=np.arange(130, dtype=np.int32))
    np.testing.assert_array_equal(*(case.run(kernels, instruction_set=instruction_set) for case in (every, layer())))


@every_instruction_set
def test_an_active_output_does_not_depend_on_which_others_are_active(instruction_set):
    dense = layer().run(kernels, instruction_set=instruction_set)
    for outputs in ([3], [3, 64, 129], list(range(64)), list(range(1, 130, 2))):
        some = layer(outputs=np.array(outputs, np.int32)).run(kernels, instruction_set=instruction_set)
        np.testing.assert_allclose(some, dense[..., outputs], rtol=1e-5, atol=1e-4)


@every_instruction_set
def test_skipped_weights_take_no_part(instruction_set):
    read, kept = np.arange(0, 70, 3, dtype=np.int32), np.arange(1, 130, 4, dtype=np.int32)
    case = layer(x=np.ones((7, 7, len(read)), np.float32), inputs=read, outputs=kept)
    poisoned = np.full_like(case.weight, np.nan)
    poisoned[np.ix_(kept, read)] = case.weight[np.ix_(kept, read)]
    y = layer(x=case.x, inputs=read, outputs=kept, weight=poisoned).run(kernels, instruction_set=instruction_set)
    np.testing.assert_array_equal(y, case.run(kernels, instruction_set=instruction_set))


@every_instruction_set
def test_without_active_inputs_only_the_shift_is_left(instruction_set):
    none = np.empty(0, np.int32)
    shift = np.linspace(-1, 1, 130, dtype=np.float32)
    case = layer(x=np.empty((7, 7, 0), np.float32), inputs=none, shift=shift, activation="relu")
    y = case.run(kernels, instruction_set=instruction_set)
    np.testing.assert_array_equal(y, np.broadcast_to(np.maximum(shift, 0), (7, 7, 130)))


@every_instruction_set
def test_without_active_outputs_the_result_is_empty(instruction_set):
    y = layer(outputs=np.empty(0, np.int32)).run(kernels, instruction_set=instruction_set)
    assert y.shape == (7, 7, 0)


@every_instruction_set
def test_a_nan_of_the_input_reaches_the_outputs_that_see_it(instruction_set):
    x = np.zeros((7, 7, 70), np.float32)
    x[3, 3, 5] = np.nan
    y = layer(x=x, activation="relu").run(kernels, instruction_set=instruction_set)
    seen = np.zeros((7, 7), bool)
    seen[2:5, 2:5] = True
    assert np.all(np.isnan(y[seen]))
    assert np.all(y[~seen] == 0)


def test_out_receives_the_result_and_nothing_beyond_it():
    case = layer(outputs=np.arange(0, 130, 3, dtype=np.int32))
    whole = np.full(7 * 7 * 44 + 32, 5, np.float32)
    out = whole[: 7 * 7 * 44].reshape(7, 7, 44)
    assert case.run(kernels, out=out) is out
    np.testing.assert_array_equal(out, case.run(kernels))
    assert np.all(whole[7 * 7 * 44 :] == 5)


def test_torch_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    case = layer()
    packed = kernels.pack_convolution(torch.from_numpy(case.weight), padding=1)
    out = torch.empty(7, 7, 130)
    assert kernels.gated_conv2d(torch.from_numpy(case.x), packed, out=out) is out
    np.testing.assert_array_equal(out.numpy(), case.run(kernels))


def test_the_packed_layout_is_the_documented_one():
    case = layer()
    packed = kernels.pack_convolution(case.weight, padding=1)
    np.testing.assert_array_equal(packed.weights, reference.pack_convolution(case.weight, padding=1).weights)
    again = kernels.PackedConvolution.from_weights(packed.weights, 130, 70, 3, 1, 1)
    np.testing.assert_array_equal(kernels.gated_conv2d(case.x, again), case.run(kernels))
    with pytest.raises(ValueError, match="read-only"):
        packed.weights[0, 0, 0, 0] = 1


@pytest.mark.parametrize("backend", [kernels, reference])
def test_macs_are_those_of_the_active_part(backend):
    weight = np.zeros((130, 70, 3, 3), np.float32)
    assert backend.pack_convolution(weight, padding=1).macs(7, 7, 70, 130) == 7 * 7 * 9 * 70 * 130
    assert backend.pack_convolution(weight, stride=2).macs(7, 9, 35, 10) == 3 * 4 * 9 * 35 * 10
    assert backend.pack_matrix(weight[..., 0, 0].copy()).macs(5, 35, 10) == 5 * 35 * 10


@every_instruction_set
@pytest.mark.parametrize("activation", ["relu", "relu6", "gelu", "silu"])
def test_activations_are_exact_to_a_millionth(instruction_set, activation):
    x = np.concatenate([np.linspace(-12, 12, 40_001), [-1e30, -200, -89, -87.5, 0, 87.5, 89, 200, 1e30]])
    x = x.astype(np.float32)[:, None]
    packed = kernels.pack_matrix(np.ones((1, 1), np.float32), instruction_set=instruction_set)
    exact = reference.gated_matmul(x.astype(np.float64), reference.pack_matrix(np.ones((1, 1))), activation=activation)
    y = kernels.gated_matmul(x, packed, activation=activation)
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6)


@every_instruction_set
@pytest.mark.parametrize(
    ("activation", "limits"),
    [
        ("none", (-np.inf, np.inf)),
        ("relu", (0, np.inf)),
        ("relu6", (0, 6)),
        ("gelu", (0, np.inf)),
        ("silu", (0, np.inf)),
    ],
)
def test_activations_of_what_is_not_finite_are_their_limits(instruction_set, activation, limits):
    x = np.array([[np.nan], [-np.inf], [np.inf]], np.float32)
    packed = kernels.pack_matrix(np.ones((20, 1), np.float32), instruction_set=instruction_set)
    y = kernels.gated_matmul(x, packed, activation=activation)
    np.testing.assert_array_equal(y, np.repeat([[np.nan], *([limit] for limit in limits)], 20, axis=1))


@every_instruction_set
def test_the_result_can_be_added_to_the_residual_in_place(instruction_set):
    total = np.random.default_rng(5).standard_normal((7, 7, 130), dtype=np.float32)
    case = layer(residual=total, saliency=np.full(130, 0.5, np.float32))
    expected = case.run(kernels, instruction_set=instruction_set)
    packed = kernels.pack_convolution(case.weight, padding=1, instruction_set=instruction_set)
    kernels.gated_conv2d(case.x, packed, saliency=case.saliency, residual=total, out=total)
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_rows_that_lie_over_each_other_are_taken_as_they_are(datatype, rows):
    random = np.random.default_rng(8)
    packed = kernels.pack_matrix(random.standard_normal((33, 48), dtype=np.float32), datatype)
    values = random.standard_normal(48 * rows + 48, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(values, 48)[: 16 * rows : 16]
    y = kernels.gated_matmul(windows, packed)
    np.testing.assert_array_equal(y, kernels.gated_matmul(windows.copy(), packed))
    with pytest.raises(ValueError, match="out must not overlap x"):
        kernels.gated_matmul(windows, packed, out=values[: 33 * rows].reshape(rows, 33))
