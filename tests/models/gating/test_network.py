import numpy as np
import pytest
import torch

from models.gating.network import GatedNetwork
from tests.models.gating.small_network import SHAPE, toy_images


@pytest.fixture
def images() -> torch.Tensor:
    return torch.tensor(toy_images()[0])


def gated(seed: int = 0, *, static: bool = False) -> GatedNetwork:
    torch.manual_seed(seed)
    network = GatedNetwork(SHAPE, static=static)
    with torch.no_grad():
        for layer in network.layers:
            layer.offset.uniform_(0.4, 1.6)
            if not static:
                layer.predictor.normal_(0, 0.2)
    return network


def test_the_batch_keeps_the_share_that_was_asked_for(images):
    _, traces = gated()(images, 0.5, shares=[0.5, 0.25])
    assert [float(trace.active.mean()) for trace in traces] == pytest.approx([0.5, 0.25], abs=0.02)


def test_images_get_different_channels_unless_the_network_is_static(images):
    _, traces = gated()(images, 0.5, shares=[0.5, 0.5])
    assert (traces[1].active != traces[1].active[0]).any()
    _, traces = gated(static=True)(images, 0.5, shares=[0.5, 0.5])
    assert all((trace.active == trace.active[0]).all() for trace in traces)


def test_a_channel_that_is_not_active_is_zero(images):
    network = gated().eval()
    layer = network.layers[0]
    x = torch.randn(len(images), 1, 8, 8)
    y, trace = layer(x, torch.zeros(len(images), SHAPE.evidence), 0.5, 0.5, 0.0, None, 0.0)
    assert (y[trace.active == 0] == 0).all()


def test_the_choice_is_learnt_only_with_a_soft_step(images):
    """Without it all channels of an image that were not chosen have the same gradient, through their mean."""
    for softness, learnt in ((0.0, False), (0.2, True)):
        network = gated()
        logits, traces = network(images, 0.5, shares=[0.5, 0.5], softness=softness)
        saliency_gradient = torch.autograd.grad(logits.square().sum(), traces[1].saliency)[0]
        skipped = (traces[1].active.detach()[0] < 0.5) & (traces[1].saliency[0] > 0)
        assert (float(saliency_gradient[0][skipped].std()) > 1e-6) is learnt


def test_evaluation_with_its_own_statistics_repeats_itself(images):
    network = gated().eval()
    with torch.no_grad():
        logits, traces = network(images, 0.5, shares=[0.5, 0.5])
        again, _ = network(
            images, 0.5, thresholds=[t.threshold for t in traces], statistics=[t.statistics for t in traces]
        )
    np.testing.assert_allclose(logits, again, rtol=1e-4, atol=1e-5)
