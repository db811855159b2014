"""The layers of a student, beside those that are served."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
pytest.importorskip("torch")

import torch

from models import kernels
from models.model import GateContext
from models.zoo import text_student
from models.zoo.bert import Bert
from models.zoo.lean_differences import add_differences
from models.zoo.lean_fitting import LeanRecipe, fit_lean
from models.zoo.text_reader import Tokens
from models.zoo.text_student import TorchLayer, join
from tests.models.zoo.random_bert import WORDS, write_random_bert
from tests.models.zoo.random_differences import random_difference

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def fitted(folder):
    random = np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(40)]
    return fit_lean(Bert(folder), sequences, recipe=LeanRecipe(neurons=0.5))


def test_the_served_layers_are_the_students(folder, fitted, monkeypatch):
    parts = add_differences(fitted, [random_difference(layer, seed) for seed, layer in enumerate(fitted)])
    encoder = Bert(folder, parts)
    texts = np.random.default_rng(1).integers(4, 4 + len(WORDS), (3, 11))
    x = torch.from_numpy(np.stack([encoder.embed(ids) for ids in texts]))
    monkeypatch.setattr(text_student.kernels, "instruction_set", lambda datatype: "portable")
    with torch.no_grad():
        attends = TorchLayer(encoder, encoder.dense_weights(0))  # looked up, and never lean
        for part in parts:
            layer = TorchLayer(encoder, part.weights)
            x = layer.feed_forward((attends or layer).attend(x))
            attends = None
    for ids, found in zip(texts, x.numpy(), strict=True):
        context = GateContext(0.0)
        states = encoder(ids, context, dict.fromkeys(encoder.channel_gates, 1e9)).states
        assert np.abs(states - found).max() < 1e-3 * np.abs(states).max()
        assert context.layers["layer1.neurons"].skipped == 80


def test_what_is_learned_is_what_is_added_to_the_served_layer(folder, fitted, monkeypatch):
    encoder = Bert(folder, fitted)
    monkeypatch.setattr(text_student.kernels, "instruction_set", lambda datatype: "portable")
    learner = TorchLayer(encoder, fitted[0].weights, rank=4)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        (added,) = add_differences(fitted[:1], [learner.difference(fitted[0].kept)])
        served = TorchLayer(encoder, added.weights)
        x = torch.from_numpy(encoder.embed(np.arange(4, 15)))[None]
        found, wanted = (layer.feed_forward(layer.attend(x)).numpy() for layer in (learner, served))
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_rows_of_no_position_are_not_attended_to(folder, fitted):
    encoder = Bert(folder, fitted)
    layer = TorchLayer(encoder, encoder.dense_weights(0))
    x = torch.from_numpy(encoder.embed(np.arange(4, 10)))[None]
    more = torch.cat([x, torch.randn(1, 2, x.shape[2])], 1)
    with torch.no_grad():
        alone, beside = layer.attend(x), layer.attend(more, torch.tensor([[1.0] * 6 + [0.0] * 2]))
    assert beside[:, :6].numpy() == pytest.approx(alone.numpy(), abs=0.03)


def test_joining_is_the_kernels():
    random = np.random.default_rng(0)
    x = random.standard_normal((3, 9, 16), np.float32)
    x[0, 4] = x[0, 3] + 0.1 * x[0, 4]
    x[2, 6] = x[2, 1] + 0.1 * x[2, 6]
    x[2, 2] = x[2, 1] + 0.1 * x[2, 2]
    sizes = random.integers(1, 4, (3, 9)).astype(np.float32)
    sizes[1, 7:] = 0
    states, counts = join(torch.from_numpy(x), torch.from_numpy(sizes), 0.3)
    assert states.shape[1] == 8
    for text, there in enumerate((9, 7, 9)):
        wanted, wanted_counts = kernels.merge_positions(x[text, :there].copy(), sizes[text, :there].copy(), 0.3)
        rows = len(wanted)
        assert states[text, :rows].numpy() == pytest.approx(wanted, abs=1e-5)
        assert counts[text].tolist() == [*wanted_counts.tolist(), *[0] * (counts.shape[1] - rows)]
