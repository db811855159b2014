"""Wrong arguments: each is an error that names the argument, in the compiled core and in the reference alike."""

import numpy as np
import pytest

from models import kernels
from models.kernels import reference

both_backends = pytest.mark.parametrize("backend", [kernels, reference])
X = np.zeros((5, 5, 4), np.float32)
WEIGHT = np.zeros((6, 4, 3, 3), np.float32)


def ids(*channels):
    return np.array(channels, np.int32)


def floats(*shape):
    return np.zeros(shape, np.float32)


WRONG = [
    ({"x": X.astype(np.float64)}, TypeError, "x must be float32"),
    ({"x": X.astype(np.int32)}, TypeError, "x must be float32"),
    ({"x": X.tolist()}, TypeError, "x must be a float32 array, not list"),
    ({"x": None}, TypeError, "x must be a float32 array, not NoneType"),
    ({"x": X[0]}, ValueError, "x must have 3 dimensions, not 2"),
    ({"x": X[..., :3].copy()}, ValueError, "x must have 4 channels"),
    ({"x": floats(0, 5, 4)}, ValueError, "x must be at least as large as the kernel"),
    ({"inputs": ids(0, 1)}, ValueError, "x must have 2 channels"),
    ({"inputs": [0, 1, 2, 3]}, TypeError, "inputs must be an int32 array"),
    ({"inputs": ids(0, 1, 2, 3).astype(np.int64)}, TypeError, "inputs must be int32"),
    ({"inputs": ids(0, 1, 2, 4)}, ValueError, "inputs must hold channels from 0 to 3"),
    ({"inputs": ids(-1, 1, 2, 3)}, ValueError, "inputs must hold channels from 0 to 3"),
    ({"inputs": ids(0, 1, 1, 3)}, ValueError, "inputs must be strictly ascending"),
    ({"outputs": ids(3, 2)}, ValueError, "outputs must be strictly ascending"),
    ({"outputs": ids(6)}, ValueError, "outputs must hold channels from 0 to 5"),
    ({"outputs": ids(1)[None]}, ValueError, "outputs must have 1 dimension"),
    ({"scale": floats(5)}, ValueError, "scale must have one value for each of the 6 outputs, not 5"),
    ({"scale": floats(6).astype(np.float16)}, TypeError, "scale must be float32"),
    ({"shift": floats(6, 1)}, ValueError, "shift must have 1 dimension"),
    (
        {"saliency": floats(6), "outputs": ids(0, 2)},
        ValueError,
        "saliency must have one value for each of the 2 active",
    ),
    ({"activation": "tanh"}, ValueError, "activation must be none, relu, relu6, gelu or silu, not 'tanh'"),
    ({"residual": floats(3, 6)}, ValueError, "residual must have"),
    ({"residual": floats(5, 4, 6)}, ValueError, "residual must have"),
    ({"residual": floats(5, 5, 6).astype(np.float64)}, TypeError, "residual must be float32"),
    ({"out": floats(5, 5, 5)}, ValueError, r"out must have the shape \[5, 5, 6\], not \[5, 5, 5\]"),
    ({"out": floats(5, 5, 6).astype(np.float64)}, TypeError, "out must be float32"),
]


@both_backends
@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_wrong_arguments_of_a_convolution(backend, wrong, error, message):
    packed = backend.pack_convolution(WEIGHT, padding=1)
    arguments = {"x": X} | wrong
    with pytest.raises(error, match=message):
        backend.gated_conv2d(arguments.pop("x"), packed, **arguments)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"), [case for case in WRONG if "x" not in case[0] and "out" not in case[0]]
)
def test_wrong_arguments_of_a_matrix_product(backend, wrong, error, message):
    packed = backend.pack_matrix(WEIGHT[..., 0, 0].copy())
    with pytest.raises(error, match=message):
        backend.gated_matmul(X[0], packed, **wrong)


@both_backends
def test_out_must_be_writable(backend):
    out = floats(5, 5, 6)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable"):
        backend.gated_conv2d(X, backend.pack_convolution(WEIGHT, padding=1), out=out)


@pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference copies what it is given")
def test_arrays_must_be_contiguous_and_apart():
    packed = kernels.pack_convolution(WEIGHT, padding=1)
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        kernels.gated_conv2d(X.transpose(1, 0, 2), packed)
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        kernels.gated_conv2d(X, packed, out=floats(5, 6, 5).transpose(0, 2, 1))
    with pytest.raises(ValueError, match="outputs must be C-contiguous"):
        kernels.gated_conv2d(X, packed, outputs=ids(0, 1, 2, 3)[::2])
    square = kernels.pack_convolution(floats(4, 4, 3, 3), padding=1)
    with pytest.raises(ValueError, match="out must not overlap x"):
        kernels.gated_conv2d(X, square, out=X)


@both_backends
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((6, 4, 2, 2), {}, "weight must be a 1x1 or a 3x3 kernel"),
        ((6, 4, 3, 1), {}, "weight must be a 1x1 or a 3x3 kernel"),
        ((0, 4, 3, 3), {}, "weight must have at least one output"),
        ((6, 4, 3), {}, "weight must have 4 dimensions"),
        ((6, 4, 3, 3), {"stride": 3}, "stride must be 1 or 2"),
        ((6, 4, 3, 3), {"padding": 2}, "padding must be 0 or 1"),
        ((6, 4, 3, 3), {"instruction_set": "mmx"}, "instruction_set must be one that this processor has"),
    ],
)
def test_layers_that_do_not_exist(backend, shape, options, message):
    with pytest.raises(ValueError, match=message):
        backend.pack_convolution(floats(*shape), **options)


@both_backends
def test_negative_sizes_are_refused(backend):
    with pytest.raises((TypeError, ValueError)):
        backend.pack_convolution(WEIGHT, padding=-1)


@both_backends
def test_packed_weights_must_be_those_of_the_layer(backend):
    weights = backend.pack_convolution(WEIGHT).weights
    with pytest.raises(ValueError, match="weights must have the shape"):
        backend.PackedConvolution.from_weights(weights, 6, 5, 3, 1, 1)


@both_backends
@pytest.mark.parametrize(
    ("features", "projection", "bias", "threshold", "message"),
    [
        (floats(3), floats(4, 5), floats(5), 0, "projection must have 3 rows"),
        (floats(4), floats(4, 5), floats(4), 0, "bias must have one value for each of the 5 channels, not 4"),
        (floats(4, 1), floats(4, 5), floats(5), 0, "features must have 1 dimension"),
        (floats(4), floats(4, 0), floats(0), 0, "projection must have at least one channel"),
        (floats(4), floats(4, 5), floats(5), np.nan, "threshold must be a number"),
    ],
)
def test_wrong_arguments_of_the_gate(backend, features, projection, bias, threshold, message):
    with pytest.raises(ValueError, match=message):
        backend.gate_channels(features, projection, bias, threshold)


@both_backends
@pytest.mark.parametrize(
    ("x", "channels", "inputs", "message"),
    [
        (floats(0, 5, 3), 3, None, "x must have at least one position"),
        (floats(4, 5, 3), 0, None, "channels must be at least 1"),
        (floats(4, 5, 3), 4, None, "x must have 4 channels, one for each active input, not 3"),
        (floats(4, 5, 3), 4, np.array([0, 1, 4], np.int32), "inputs"),
        (floats(4, 5, 0), 1, np.array([], np.int32), "x must have its only channel"),
    ],
)
def test_wrong_arguments_of_the_squeeze(backend, x, channels, inputs, message):
    with pytest.raises(ValueError, match=message):
        backend.squeeze_channels(x, channels, floats(2), inputs=inputs)


@both_backends
def test_wrong_arguments_of_the_reductions(backend):
    with pytest.raises(ValueError, match="x must be at least 2x2"):
        backend.max_pool2x2(floats(1, 5, 3))
    with pytest.raises(ValueError, match="x must have at least one position"):
        backend.channel_means(floats(0, 5, 3))
    with pytest.raises(ValueError, match="out must have the shape"):
        backend.channel_means(X, out=floats(5))


@both_backends
def test_an_image_without_positions_is_refused(backend):
    packed = backend.pack_convolution(floats(4, 3, 1, 1), padding=1)
    with pytest.raises(ValueError, match="x must have at least one position"):
        backend.gated_conv2d(floats(0, 5, 3), packed)


def test_a_number_of_channels_that_would_wrap_around_is_refused():
    with pytest.raises(ValueError, match="channels must be at least 1 and at most 2"):
        kernels.squeeze_channels(floats(1, 1, 1), 2**64 - 1, floats(1), inputs=np.array([0], np.int32))


def test_misaligned_arrays_are_refused():
    raw = np.zeros(4 * 12 + 1, np.uint8)
    with pytest.raises(ValueError, match="x must be aligned"):
        kernels.channel_means(raw[1:].view(np.float32).reshape(2, 2, 3))


def test_the_result_may_be_the_residual_but_not_lie_over_a_part_of_it():
    packed = kernels.pack_matrix(floats(8, 6))
    both = floats(5, 8)
    with pytest.raises(ValueError, match="out must not overlap residual"):
        kernels.gated_matmul(floats(4, 6), packed, residual=both[1:], out=both[:4])


@pytest.mark.parametrize("name", ["inputs", "outputs", "scale", "shift", "saliency"])
def test_the_result_must_not_lie_over_an_argument(name):
    packed = kernels.pack_matrix(floats(8, 6))
    out = floats(4, 8)
    length = {"inputs": 6, "outputs": 8, "scale": 8, "shift": 8, "saliency": 8}[name]
    overlaid = out.reshape(-1)[:length]
    if name in ("inputs", "outputs"):
        overlaid = overlaid.view(np.int32)
        overlaid[:] = np.arange(length)
    with pytest.raises(ValueError, match=f"out must not overlap {name}"):
        kernels.gated_matmul(floats(4, 6), packed, out=out, **{name: overlaid})
