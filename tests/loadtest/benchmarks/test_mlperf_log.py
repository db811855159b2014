import json

import numpy as np
import pytest

from loadtest.benchmarks import mlperf_log
from loadtest.benchmarks.mlperf_log import need_loadgen, read_accuracy, read_verdict

SUMMARY = """\
Scenario : Server
Completed samples per second    : 491.79
Result is : {result}
  Performance constraints satisfied : {late}
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: {sure}
Scheduled samples per second : 491.82
Mean latency (ns)               : 107860
50.00 percentile latency (ns)   : 88541
99.00 percentile latency (ns)   : 1555783
No errors encountered during test.
"""


def write(folder, text):
    (folder / "mlperf_log_summary.txt").write_text(text)
    return folder


def test_a_valid_result(tmp_path):
    verdict = read_verdict(write(tmp_path, SUMMARY.format(result="VALID", late="Yes", sure="Yes")))
    assert verdict.valid
    assert verdict.reasons == ()
    assert (verdict.rate, verdict.completed) == (491.82, 491.79)
    assert (verdict.p50_ms, verdict.p99_ms, verdict.mean_ms) == pytest.approx((0.088541, 1.555783, 0.10786))


def test_an_invalid_result_says_why(tmp_path):
    verdict = read_verdict(write(tmp_path, SUMMARY.format(result="INVALID", late="NO", sure="NO")))
    assert not verdict.valid
    assert verdict.reasons == ("Performance constraints", "Early stopping")


@pytest.mark.parametrize("text", ["", SUMMARY.replace("No errors", "2 errors"), SUMMARY.replace("Result is", "Result")])
def test_no_verdict(tmp_path, text):
    with pytest.raises(RuntimeError, match="LoadGen"):
        read_verdict(write(tmp_path, text))


def test_a_run_that_left_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="did not end well"):
        read_verdict(tmp_path)
    with pytest.raises(RuntimeError, match="no accuracy log"):
        read_accuracy(tmp_path, np.zeros(1, np.int64))


def test_accuracy_counts_what_is_missing_as_wrong(tmp_path):
    answers = {2: 7, 0: 3, 1: -1}
    entries = [
        {"seq_id": 0, "qsl_idx": at, "data": label.to_bytes(8, "little", signed=True).hex()}
        for at, label in answers.items()
    ]
    (tmp_path / "mlperf_log_accuracy.json").write_text(json.dumps(entries))
    assert read_accuracy(tmp_path, np.array([3, 5, 7, 9])) == 0.5


def test_without_loadgen_it_says_so(monkeypatch):
    monkeypatch.setattr(mlperf_log, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="LoadGen is not installed"):
        need_loadgen()
