"""The model, its images and a server of it, for tests of the whole."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from models.model import Model
from models.zoo import catalog, fashion_data
from tests.live import LiveServer, serve
from tests.tiny_model import random_images, tiny_model


def _installed() -> bool:
    return any(entry.name == "fashion" and entry.installed for entry in catalog.available())


@pytest.fixture(scope="session")
def model() -> Model:
    """The trained classifier where its weights are there, else a real gated one with random weights."""
    return catalog.load("fashion") if _installed() else tiny_model()


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """uint8 [64, 28, 28]."""
    return fashion_data.sample().images[:64] if _installed() else random_images(64)


@pytest.fixture(scope="module")
def server(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose SLO is so wide that only a pinned level skips anything, and which shadows nothing."""
    with serve([model], tmp_path_factory.mktemp("home"), slo_latency_ms=10_000, shadow_share=0.0) as live:
        yield live
