import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from loadtest.benchmarks.speech_engines import torch_encoder
from models.model import GateContext
from models.zoo.whisper import Whisper
from models.zoo.whisper_files import read_whisper
from tests.models.zoo.random_whisper import MELS, POSITIONS, write_random_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def spectrum():
    return np.random.default_rng(0).uniform(-1, 1, (2 * POSITIONS, MELS)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(folder, spectrum):
    files = read_whisper(folder)
    return Whisper(files.shape, files.tensors).encode(spectrum, 2 * POSITIONS, GateContext(0.0)).states


def test_torch_computes_the_same(folder, spectrum, wanted):
    pytest.importorskip("torch")
    assert torch_encoder(folder, "fp32")(spectrum) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("fused", [True, False])
def test_the_graphs_compute_the_same(folder, spectrum, wanted, fused):
    pytest.importorskip("onnx", reason="the extra `bench` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")
    from loadtest.benchmarks.model_engines import onnx_runtime
    from loadtest.benchmarks.model_graphs import checked
    from loadtest.benchmarks.speech_graphs import encoder_graph

    run = onnx_runtime(checked(encoder_graph(folder, fused)), "fp32")
    assert run(spectrum.T[None].copy())[0] == pytest.approx(wanted, abs=1e-3)
