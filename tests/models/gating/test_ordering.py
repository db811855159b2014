import numpy as np
import torch

from models.gating.network import GatedNetwork
from models.gating.ordering import order_channels
from tests.models.gating.small_network import GATED, SHAPE, toy_images

KEPT = (1.0, 0.7, 0.4)


def random_network() -> GatedNetwork:
    torch.manual_seed(3)
    network = GatedNetwork(SHAPE).eval()
    with torch.no_grad():
        for layer in network.layers:
            for parameter in layer.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            layer.offset += 0.5
    return network


def pass_through(network: GatedNetwork, kept: float) -> tuple[torch.Tensor, list[np.ndarray]]:
    with torch.no_grad():
        logits, traces = network(torch.tensor(toy_images()[0]), kept, shares=[kept**power for power in GATED.exponents])
    return logits, [trace.active.mean(0).numpy() for trace in traces]


def test_the_function_is_the_same_in_any_order():
    network = random_network()
    before = [pass_through(network, kept) for kept in KEPT]
    order_channels(network, toy_images()[0], KEPT, GATED.exponents)
    for (logits, active), kept in zip(before, KEPT, strict=True):
        ordered_logits, ordered_active = pass_through(network, kept)
        torch.testing.assert_close(ordered_logits, logits, rtol=1e-3, atol=1e-3)
        for a, b in zip(active, ordered_active, strict=True):
            np.testing.assert_allclose(np.sort(a), np.sort(b))


def test_the_most_active_channels_come_first():
    network = random_network()
    order_channels(network, toy_images()[0], KEPT, GATED.exponents)
    per_dial = [pass_through(network, kept)[1] for kept in KEPT]
    for activity in zip(*per_dial, strict=True):
        total = sum(activity)
        assert total.min() < total.max()
        assert (np.diff(total) <= 1e-6).all()
