"""The comparison with other engines, on the smallest case that there is."""

import json

import numpy as np
import pytest

from loadtest.benchmarks.model import CaseResult, Row, as_json, compare, report_table
from loadtest.benchmarks.model_cases import cases_of
from models.zoo import catalog


@pytest.fixture(scope="module")
def results():
    pytest.importorskip("torch")
    return compare("fashion", ["torch"], ["fp32"], [], [0.0, 1.0], 0.0, lambda text: None)


def test_every_contender_is_measured_and_agrees(results):
    (result,) = results
    assert [row.contender for row in result.rows] == ["sluice", "torch", "level 0", "level 1"]
    assert all(row.seconds > 0 for row in result.rows)
    assert result.rows[1].cosine == pytest.approx(1, abs=1e-4)
    assert result.rows[3].macs_ratio < 0.2
    assert result.dense.peak_mib is not None and result.dense.peak_mib > 5


def test_ratios_are_of_the_times():
    rows = [Row("sluice", 2.0, 1.0, 1.0), Row("torch", 6.0, 1.0, 1.0), Row("level 1", 0.5, 0.25, 0.9, level=1.0)]
    result = CaseResult("a size", "fp32", 10**9, rows)
    dense, _, most = result.as_dict()["rows"]
    assert dense["speedup_over"] == {"torch": 3}
    assert most["speedup_over"] == {"torch": 12}
    assert most["of_dense"] == 0.25
    assert (dense["gflops"], most["gflops"]) == (1, 1)
    assert report_table(result).row_count == 3
    assert json.loads(as_json("model", [result]))["cases"][0]["macs"] == 10**9


def test_levels_are_set_beside_what_their_work_says():
    dense = Row("sluice", 2.0, 1.0, 1.0)
    levels = [Row("level 0.5", 1.3, 0.5, 0.99, level=0.5), Row("level 1", 0.6, 0.25, 0.9, level=1.0)]
    result = CaseResult("a size", "fp32", 10**9, [dense, *levels])
    assert result.overhead == pytest.approx(0.2)  # 0.3 and 0.1
    assert [result.of_predicted(row) for row in levels] == pytest.approx([1.3 / 1.2, 0.6 / 0.7])
    assert [row["of_predicted"] is None for row in result.as_dict()["rows"]] == [True, False, False]
    assert "of predicted" in [column.header for column in report_table(result).columns]


def test_a_level_that_saves_more_than_its_work_has_no_overhead():
    result = CaseResult(
        "a size", "fp32", 10**9, [Row("sluice", 2.0, 1.0, 1.0), Row("level 1", 0.8, 0.5, 0.9, level=1.0)]
    )
    assert result.overhead == 0
    assert result.of_predicted(result.rows[1]) == pytest.approx(0.8)


def test_without_levels_there_is_nothing_to_predict():
    result = CaseResult("a size", "fp32", 10**9, [Row("sluice", 2.0, 1.0, 1.0)])
    assert result.overhead == 0
    assert "of predicted" not in [column.header for column in report_table(result).columns]


def test_documents_are_compared_by_rank_as_well():
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    try:
        results = compare("minilm", [], ["fp32"], [], [0.0, 0.5], 0.0, lambda text: None)
    except catalog.MissingWeights as error:
        pytest.skip(str(error))
    if not results:
        pytest.skip("the documents are not installed")
    (result,) = results
    dense, none, half = result.rows
    assert dense.spearman == none.spearman == pytest.approx(1)
    assert half.spearman is not None
    assert 0.95 < half.spearman < 1
    assert half.macs_ratio < 0.8
    assert result.size == "50 documents"
    assert "Spearman" in [column.header for column in report_table(result).columns]
    assert result.as_dict()["rows"][2]["spearman"] == half.spearman


def test_what_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"engine 'tensorrt'.*torch, ort, openvino"):
        cases_of("fashion", ["tensorrt"], ["fp32"], [], [])
    with pytest.raises(ValueError, match="datatype 'fp8'"):
        cases_of("fashion", [], ["fp8"], [], [])
    with pytest.raises(catalog.UnknownModel):
        cases_of("resnet", [], ["fp32"], [], [])


@pytest.mark.parametrize("engine", ["ort", "openvino"])
def test_other_engines_agree_on_the_image_network(engine):
    pytest.importorskip("onnx", reason="the extra `bench` is not installed")
    pytest.importorskip({"ort": "onnxruntime"}.get(engine, engine), reason="the extra `bench` is not installed")
    (case,) = cases_of("fashion", [engine], ["fp32"], [], [])
    (run,) = (run for run in case.runs if run.name == engine)
    for x, wanted in zip(case.inputs, case.wanted, strict=True):
        np.testing.assert_allclose(run.call(x), wanted, atol=1e-3)
