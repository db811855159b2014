"""A step of a language model beside other engines."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("gguf", reason="the extra `language` is not installed")
pytest.importorskip("transformers", reason="the extra `bench` is not installed")

from loadtest.benchmarks import model as benchmark
from loadtest.benchmarks.language_engines import able, quantised
from loadtest.benchmarks.model_cases import cases_of
from models.zoo.family import MissingWeights
from models.zoo.llama_gguf import convert
from tests.models.zoo.random_llama import write_random_llama
from tests.models.zoo.test_llama import assert_close, network
from tests.models.zoo.test_llama_gguf import write_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_llama(tmp_path_factory.mktemp("tiny"))


def test_every_engine_takes_the_same_step(folder):
    (case,) = cases_of(str(folder), ["torch"], ["fp32"], [12], [0.0])
    assert [run.name for run in case.runs] == ["sluice", "torch", "level 0"]
    for run in case.runs:
        for ids, wanted in zip(case.inputs, case.wanted, strict=True):
            assert_close(run.call(ids), wanted)
            assert_close(run.call(ids), wanted)  # and again: it stands where it stood before


def test_tokens_a_second_are_shown(folder):
    (result,) = benchmark.compare(str(folder), [], ["fp32"], [12], [], 0.0, lambda text: None)
    assert result.rate == "tokens/s"
    table = benchmark.report_table(result)
    assert "tokens/s" in [column.header for column in table.columns]
    assert len(table.columns) == 8


def test_what_cannot_be_compared_says_so(folder):
    with pytest.raises(ValueError, match="a size is 2 to 96 tokens, got 1"):
        list(cases_of(str(folder), [], ["fp32"], [1], []))
    with pytest.raises(MissingWeights, match="is no GGUF file"):
        list(cases_of(str(folder), ["llama-cpp"], ["fp32"], [8], []))
    assert not able("torch", "int8", ["torch"])
    assert not able("torch", "fp32", [])


def test_a_gguf_file_is_quantised_anew(folder, tmp_path):
    source = write_gguf(tmp_path / "tiny.gguf", folder)
    target = quantised(source, tmp_path / "made" / "tiny.BF16.gguf", "BF16")
    convert(target, tmp_path / "folder", lambda done: None)
    ids = [5, 9, 77, 12]
    exact, made = network(folder), network(tmp_path / "folder")
    assert_close(made.logits(made.advance(ids, made.start())), exact.logits(exact.advance(ids, exact.start())), 0.05)
    written = target.stat().st_mtime_ns
    assert quantised(source, target, "BF16").stat().st_mtime_ns == written
    assert np.array_equal(sorted(path.name for path in target.parent.iterdir()), [target.name])
