import json

import numpy as np
import orjson
import pytest

from loadtest.texts import Texts, dense_embeddings
from loadtest.workload import Reply
from service.protocol.v2_request import JSON_LENGTH_HEADER
from tests.models.zoo.random_bert import write_random_bert

WANTED = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)


@pytest.fixture
def workload():
    return Texts(["a cat", "a dog"], WANTED, "words", {"level": 0.25})


def reply(embedding, status=200):
    head = orjson.dumps({"parameters": {"level": 0.25}})
    return Reply(status, {JSON_LENGTH_HEADER.lower(): str(len(head))}, head + embedding.astype("<f4").tobytes())


def test_its_requests_are_texts_with_the_parameters(workload):
    first, second = workload.posts
    assert first.path == second.path == "/v2/models/words/infer"
    assert json.loads(second.body)["inputs"][0]["data"] == ["a dog"]
    assert json.loads(second.body)["parameters"] == {"level": 0.25}


def test_answers_are_judged_by_the_cosine_to_dense(workload):
    judged = workload.judge(0, reply(np.array([3.0, 4.0])))
    assert (judged.outcome, judged.level) == ("ok", 0.25)
    assert judged.score == pytest.approx(1)
    assert workload.judge(1, reply(np.array([3.0, 4.0]))).score == pytest.approx(0.6)


def test_what_is_no_answer_is_an_error(workload):
    assert workload.judge(0, Reply(200, {}, b"no head")).outcome == "error"
    assert workload.judge(0, reply(np.ones(3))).outcome == "error"
    assert workload.judge(0, reply(np.ones(2), 500)).outcome == "error"
    assert workload.judge(0, Reply(503, {"retry-after": "1"}, b"")).outcome == "refused"


def test_the_dense_embeddings_are_those_of_the_model(tmp_path):
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    found = dense_embeddings(str(write_random_bert(tmp_path / "bert")), ["the cat", "the cat", "sat"])
    assert found.dtype == np.float32
    assert (found[0] == found[1]).all()
    assert not np.allclose(found[0], found[2])
