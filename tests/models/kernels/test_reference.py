"""The reference itself, against torch on the whole layer with everything inactive set to zero."""

import math

import numpy as np
import torch
from hypothesis import given, settings

from models.kernels import reference
from tests.models.kernels.cases import convolutions, products

ACTIVATIONS = {
    "none": lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "relu6": lambda y: np.clip(y, 0, 6),
    "gelu": lambda y: y * (1 + torch.erf(torch.from_numpy(y) / math.sqrt(2)).numpy()) / 2,
    "silu": lambda y: y / (1 + np.exp(-y)),
}


def masked(case):
    """The layer done densely on zeros, and the active outputs of it."""
    weight = torch.from_numpy(case.weight.astype(np.float64))
    read = np.arange(weight.shape[1]) if case.inputs is None else case.inputs
    kept = np.arange(weight.shape[0]) if case.outputs is None else case.outputs
    x = np.zeros((*case.x.shape[:-1], weight.shape[1]))
    x[..., read] = case.x
    if weight.ndim == 2:
        y = torch.nn.functional.linear(torch.from_numpy(x), weight).numpy()
    else:
        image = torch.from_numpy(x).permute(2, 0, 1)
        y = torch.nn.functional.conv2d(image[None], weight, stride=case.stride, padding=case.padding)[0]
        y = y.permute(1, 2, 0).numpy()
    y = y * (1 if case.scale is None else case.scale) + (0 if case.shift is None else case.shift)
    y = ACTIVATIONS[case.activation](y)[..., kept] * (1 if case.saliency is None else case.saliency)
    return y if case.residual is None else y + case.residual


@settings(max_examples=30, deadline=None)
@given(case=convolutions())
def test_convolution_is_the_masked_dense_layer(case):
    np.testing.assert_allclose(case.run(reference, np.float64), masked(case), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(case=products())
def test_matrix_product_is_the_masked_dense_layer(case):
    np.testing.assert_allclose(case.run(reference, np.float64), masked(case), rtol=1e-9, atol=1e-9)
