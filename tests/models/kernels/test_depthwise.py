"""The depthwise convolution against the float64 reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import ACTIVATION_TOLERANCE, ACTIVATIONS, SIZES, TOLERANCE, VECTOR_SETS, channel_lists

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_depthwise_convolution_is_the_reference(instruction_set, data, seed):
    random = np.random.default_rng(seed)
    kernel, stride = data.draw(st.sampled_from([3, 5])), data.draw(st.sampled_from([1, 2]))
    padding = (data.draw(st.integers(0, kernel - 1)), data.draw(st.integers(0, kernel - 1)))
    extent = st.integers(max(1, kernel - sum(padding)), 12)
    height, width, channels = data.draw(extent), data.draw(extent), data.draw(SIZES)
    active = data.draw(channel_lists(channels))
    count = channels if active is None else len(active)

    def maybe(length):
        return random.standard_normal(length, dtype=np.float32) if data.draw(st.booleans()) else None

    x = random.standard_normal((height, width, count), dtype=np.float32)
    weight = random.standard_normal((channels, kernel, kernel), dtype=np.float32)
    vectors = {"scale": maybe(channels), "shift": maybe(channels), "saliency": maybe(count)}
    activation = data.draw(st.sampled_from(ACTIVATIONS))

    def run(backend, convert, **options):
        packed = backend.pack_depthwise(convert(weight), stride, padding, options.pop("instruction_set", None))
        own = {name: None if vector is None else convert(vector) for name, vector in vectors.items()}
        return backend.depthwise_conv2d(convert(x), packed, channels=active, **own, **options)

    y = run(kernels, lambda array: array, activation=activation, instruction_set=instruction_set)
    exact = run(reference, lambda array: array.astype(np.float64), activation=activation)
    largest = run(reference, lambda array: abs(array).astype(np.float64))
    assert y.shape == exact.shape
    assert y.dtype == np.float32
    weight_of_activation = 1 if vectors["saliency"] is None else np.abs(vectors["saliency"])
    assert np.all(np.abs(y - exact) <= TOLERANCE * largest + ACTIVATION_TOLERANCE * weight_of_activation)


def test_the_reference_is_torch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((9, 8, 6)), random.standard_normal((6, 5, 5))
    image = torch.from_numpy(x).permute(2, 0, 1)[None]
    own = torch.nn.functional.conv2d(image, torch.from_numpy(weight)[:, None], stride=2, padding=2, groups=6)[0]
    y = reference.depthwise_conv2d(x, reference.pack_depthwise(weight, 2, (2, 2)))
    np.testing.assert_allclose(y, own.permute(1, 2, 0), rtol=1e-12)


@every_instruction_set
@pytest.mark.parametrize("channels", [3, 16, 40])
def test_an_active_channel_does_not_depend_on_which_others_are_active(instruction_set, channels):
    random = np.random.default_rng(1)
    x = random.standard_normal((7, 7, channels), dtype=np.float32)
    weight = random.standard_normal((channels, 3, 3), dtype=np.float32)
    packed = kernels.pack_depthwise(weight, 1, (1, 1), instruction_set)
    dense = kernels.depthwise_conv2d(x, packed)
    active = np.arange(0, channels, 3, dtype=np.int32)
    some = kernels.depthwise_conv2d(np.ascontiguousarray(x[..., active]), packed, channels=active)
    np.testing.assert_allclose(some, dense[..., active], rtol=1e-5, atol=1e-6)


@both_backends
def test_macs_and_shape(backend):
    packed = backend.pack_depthwise(np.zeros((7, 3, 3), np.float32), 2, (0, 1))
    assert packed.macs(8, 10, 4) == 4 * 5 * 9 * 4
    assert (packed.channels, packed.kernel, packed.stride, packed.padding) == (7, 3, 2, (0, 1))


X, WEIGHT = np.zeros((5, 5, 4), np.float32), np.zeros((4, 3, 3), np.float32)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": X[0]}, ValueError, "x must have 3 dimensions, not 2"),
        ({"x": X[:2, :2].copy()}, ValueError, "x must be at least as large as the kernel"),
        ({"x": X[..., :3].copy()}, ValueError, "x must have 4 channels, one for each active channel, not 3"),
        ({"channels": np.array([0, 1], np.int32)}, ValueError, "x must have 2 channels"),
        ({"channels": np.array([0, 1, 1, 2], np.int32)}, ValueError, "channels must be strictly ascending"),
        ({"channels": np.array([0, 1, 2, 4], np.int32)}, ValueError, "channels must hold channels from 0 to 3"),
        ({"scale": X[0, 0, :3].copy()}, ValueError, "scale must have one value for each of the 4 channels, not 3"),
        ({"shift": X[0, 0, :3].copy()}, ValueError, "shift must have one value for each of the 4 channels, not 3"),
        (
            {"saliency": X[0, 0, :3].copy()},
            ValueError,
            "saliency must have one value for each of the 4 active channels",
        ),
        ({"activation": "tanh"}, ValueError, "activation must be none, relu, relu6, gelu or silu, not 'tanh'"),
        ({"out": X}, ValueError, r"out must have the shape \[3, 3, 4\], not \[5, 5, 4\]"),
    ],
)
def test_wrong_arguments_are_named(backend, wrong, error, message):
    packed = backend.pack_depthwise(WEIGHT)
    with pytest.raises(error, match=message):
        backend.depthwise_conv2d(**{"x": X, "packed": packed} | wrong)


@both_backends
@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (np.zeros((4, 2, 2), np.float32), {}, "weight must be 3x3 or 5x5 kernels"),
        (np.zeros((4, 3, 5), np.float32), {}, "weight must be 3x3 or 5x5 kernels"),
        (np.zeros((0, 3, 3), np.float32), {}, "weight must have at least one channel"),
        (WEIGHT[0], {}, "weight must have 3 dimensions, not 2"),
        (WEIGHT, {"stride": 3}, "stride must be 1 or 2, not 3"),
        (WEIGHT, {"padding": (3, 0)}, "padding must be less than the kernel"),
        (WEIGHT, {"instruction_set": "mmx"}, "instruction_set must be one that this processor has"),
    ],
)
def test_layers_that_do_not_exist(backend, weight, options, message):
    with pytest.raises(ValueError, match=message):
        backend.pack_depthwise(weight, **options)
