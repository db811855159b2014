"""Random layers with every optional argument, and the float64 yardstick that the kernels are held against."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import kernels
from models.kernels import reference

# Of the sum of the absolute values of all terms: what rounding in float32 may cost.
TOLERANCE = 1e-5

# The tile unit does products alone: elsewhere its set is that of the vector units.
VECTOR_SETS = [name for name in kernels.instruction_sets() if name != "amx"]

# What an activation may be off by, whatever its argument.
ACTIVATION_TOLERANCE = 1e-6

ACTIVATIONS = ("none", "relu", "relu6", "gelu", "silu")

# Sizes on both sides of a vector, a tile and a block of 64 columns.
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 80, 127, 128, 130, 200]))


@dataclass(frozen=True)
class Case:
    """One call: x, the weight, and what goes with them."""

    x: NDArray[np.float32]
    weight: NDArray[np.float32]
    stride: int
    padding: int
    inputs: NDArray[np.int32] | None
    outputs: NDArray[np.int32] | None
    scale: NDArray[np.float32] | None
    shift: NDArray[np.float32] | None
    saliency: NDArray[np.float32] | None
    residual: NDArray[np.float32] | None
    activation: str

    def run(self, backend, number=np.float32, instruction_set=None, *, datatype="fp32", absolute=False, **extra):
        """The result of a backend in a number type; with `absolute`, of the absolute values of everything, and without
        the activation: none of them is steeper than 1.13."""

        def prepared(array):
            return None if array is None else (abs(array) if absolute else array).astype(number)

        arguments = {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "scale": prepared(self.scale),
            "shift": prepared(self.shift),
            "saliency": prepared(self.saliency),
            "residual": prepared(self.residual),
            "activation": "none" if absolute else self.activation,
            **extra,
        }
        weight = prepared(self.weight)
        if weight.ndim == 2:
            packed = backend.pack_matrix(weight, datatype, instruction_set)
            return backend.gated_matmul(prepared(self.x), packed, **arguments)
        packed = backend.pack_convolution(weight, self.stride, self.padding, datatype, instruction_set)
        return backend.gated_conv2d(prepared(self.x), packed, **arguments)

    def check(self, instruction_set, datatype="fp32"):
        """Fails when the kernel of an instruction set is further from the exact result than rounding explains."""
        y = self.run(kernels, instruction_set=instruction_set, datatype=datatype)
        exact = self.run(reference, np.float64, datatype=datatype)
        bound = TOLERANCE * self.run(reference, np.float64, datatype=datatype, absolute=True) + ACTIVATION_TOLERANCE
        assert y.shape == exact.shape
        assert y.dtype == np.float32
        assert np.all(np.abs(y - exact) <= bound)


def channel_lists(count):
    """None, or an ascending list of channels: none of them, one, a few, whole blocks of 64, all."""
    masks = st.one_of(
        st.floats(0, 1).flatmap(lambda share: st.integers(0, 2**32 - 1).map(lambda seed: _chosen(count, share, seed))),
        st.integers(0, count - 1).map(lambda channel: np.arange(count) == channel),
        st.integers(0, 3).map(lambda block: np.arange(count) // 64 == block),
        st.integers(0, 2**32 - 1).map(lambda seed: _chosen(count, 0.5, seed) | (np.arange(count) < 64)),
        st.sampled_from([np.zeros(count, bool), np.ones(count, bool)]),
    )
    return st.none() | masks.map(lambda mask: np.flatnonzero(mask).astype(np.int32))


def _chosen(count, share, seed):
    return np.random.default_rng(seed).random(count) < share


def _case(draw, x_shape, y_shape, weight_shape, stride, padding):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_outputs, n_inputs = weight_shape[:2]
    inputs, outputs = draw(channel_lists(n_inputs)), draw(channel_lists(n_outputs))
    read = n_inputs if inputs is None else len(inputs)
    kept = n_outputs if outputs is None else len(outputs)

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    return Case(
        x=normal(*x_shape, read),
        weight=normal(*weight_shape),
        stride=stride,
        padding=padding,
        inputs=inputs,
        outputs=outputs,
        scale=normal(n_outputs) if draw(st.booleans()) else None,
        shift=normal(n_outputs) if draw(st.booleans()) else None,
        saliency=random.random(kept, dtype=np.float32) if draw(st.booleans()) else None,
        residual=normal(*y_shape, kept) if draw(st.booleans()) else None,
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


@st.composite
def convolutions(draw):
    """A gated convolution of one image of up to 12 x 12 positions."""
    kernel, stride, padding = (
        draw(st.sampled_from([1, 3])),
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([0, 1])),
    )
    least = max(1, kernel - 2 * padding)
    shape = draw(st.tuples(st.integers(least, 12), st.integers(least, 12)))
    result = tuple((size + 2 * padding - kernel) // stride + 1 for size in shape)
    return _case(draw, shape, result, (draw(SIZES), draw(SIZES), kernel, kernel), stride, padding)


@st.composite
def products(draw):
    """A gated matrix product of up to 40 rows, deep enough for more than one panel of inputs."""
    depth = draw(st.one_of(SIZES, st.sampled_from([191, 192, 193, 400])))
    rows = (draw(st.integers(0, 40)),)
    return _case(draw, rows, rows, (draw(SIZES), depth), 1, 0)
