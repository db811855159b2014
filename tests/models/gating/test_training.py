import dataclasses

import numpy as np
import pytest
import torch

from models.gating.network import GatedNetwork, PlainNetwork
from models.gating.training import Progress, start_from, train_gated, train_plain
from tests.models.gating.small_network import GATED, PLAIN, SHAPE, toy_images


def silent(_: Progress) -> None:
    pass


def accuracy(network: PlainNetwork, images: np.ndarray, labels: np.ndarray) -> float:
    network.eval()
    with torch.no_grad():
        return float((network(torch.tensor(images)).argmax(1).numpy() == labels).mean())


def trained_plain(tmp_path, epochs: int = 6) -> PlainNetwork:
    torch.manual_seed(0)
    network = PlainNetwork(SHAPE)
    train_plain(network, *toy_images(), dataclasses.replace(PLAIN, epochs=epochs), tmp_path / "plain.pt", silent)
    return network


def gated_from(plain: PlainNetwork, seed: int = 0) -> GatedNetwork:
    torch.manual_seed(seed)
    network = GatedNetwork(SHAPE)
    start_from(plain, network, toy_images()[0], GATED)
    return network


def test_plain_training_learns(tmp_path):
    images, labels = toy_images(seed=1)
    torch.manual_seed(0)
    untrained = accuracy(PlainNetwork(SHAPE), images, labels)
    assert accuracy(trained_plain(tmp_path), images, labels) > untrained + 0.2


def test_the_gated_network_starts_as_the_plain_one(tmp_path):
    plain = trained_plain(tmp_path).eval()
    gated = GatedNetwork(SHAPE, static=True).eval()
    images = torch.tensor(toy_images()[0])
    start_from(plain, gated, toy_images()[0], GATED)
    with torch.no_grad():
        wanted = plain.activations(images)[0]
        # The same statistics as the plain norm's running ones, so that only the gate can differ.
        norm = plain.norms[0]
        from models.gating.network import Statistics, normalise

        statistics = Statistics(norm.running_mean, norm.running_var)
        evidence = torch.zeros(len(images), SHAPE.evidence)
        y, _ = gated.layers[0](normalise(images), evidence, 1.0, 1.0, 0.0, statistics, 0.0)
    np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=1e-4)


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path):
    plain = trained_plain(tmp_path)

    class Interrupted(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (2, 3):
            raise Interrupted

    data = toy_images()
    whole = gated_from(plain)
    train_gated(whole, plain, *data, GATED, tmp_path / "whole.pt", silent)
    with pytest.raises(Interrupted):
        train_gated(gated_from(plain), plain, *data, GATED, tmp_path / "parts.pt", interrupt)
    resumed = gated_from(plain, seed=5)
    train_gated(resumed, plain, *data, GATED, tmp_path / "parts.pt", silent)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_evidence_and_the_predictors_are_trained(tmp_path):
    plain = trained_plain(tmp_path)
    network = gated_from(plain)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_gated(network, plain, *toy_images(), GATED, tmp_path / "gated.pt", silent)
    after = network.state_dict()
    for name in ("evidence.weight", "layers.0.predictor", "layers.1.predictor", "layers.1.offset"):
        assert not torch.equal(before[name], after[name]), name


def test_a_static_network_keeps_its_predictors_at_zero(tmp_path):
    plain = trained_plain(tmp_path)
    network = GatedNetwork(SHAPE, static=True)
    start_from(plain, network, toy_images()[0], GATED)
    train_gated(network, plain, *toy_images(), GATED, tmp_path / "static.pt", silent)
    assert all((layer.predictor == 0).all() for layer in network.layers)


def test_another_recipe_does_not_resume(tmp_path):
    trained_plain(tmp_path, epochs=1)
    with pytest.raises(ValueError, match="another recipe"):
        trained_plain(tmp_path, epochs=2)


def test_progress_counts_every_step(tmp_path):
    seen: list[Progress] = []
    train_plain(PlainNetwork(SHAPE), *toy_images(), PLAIN, tmp_path / "p.pt", seen.append)
    assert [(p.epoch, p.step) for p in seen] == [(e, s) for e in (1, 2) for s in range(1, 7)]
    assert {(p.phase, p.steps, p.epochs) for p in seen} == {("plain", 6, 2)}
