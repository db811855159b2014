"""Fixtures of the models' tests."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Products of small models wait for a second thread of torch longer than they take."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
