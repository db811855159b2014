import numpy as np
import orjson
import pytest

from loadtest.workload import Images, Judged, Reply, load_workload
from models.zoo.fashion_data import LabelledImages
from service.protocol.v2_request import JSON_LENGTH_HEADER
from tests.tiny_model import random_images

DATA = LabelledImages(random_images(6), np.arange(6, dtype=np.int64))


def reply(labels: list[int], status: int = 200, level: float = 0.25) -> Reply:
    head = orjson.dumps({"parameters": {"level": level}})
    return Reply(status, {JSON_LENGTH_HEADER.lower(): str(len(head))}, head + np.array(labels, "<i8").tobytes())


def test_answers_are_judged_by_their_own_labels():
    images = Images(DATA, batch=2)
    assert len(images.posts) == 3
    assert images.judge(1, reply([2, 3])) == Judged("ok", 0.25, 1.0)
    assert images.judge(1, reply([2, 0])) == Judged("ok", 0.25, 0.5)
    assert images.judge(2, reply([2, 3])).score == 0


def test_a_request_holds_its_images_and_parameters():
    post = Images(DATA, {"level": 0}, batch=2).posts[1]
    split = int(post.headers[JSON_LENGTH_HEADER])
    assert orjson.loads(post.body[:split])["parameters"] == {"level": 0}
    assert post.body[split:] == DATA.images[2:4].tobytes()


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (503, {"retry-after": "1"}, "refused"),
        (503, {}, "expired"),
        (500, {}, "error"),
        (429, {"retry-after": "1"}, "error"),
        (200, {}, "error"),
        (200, {"inference-header-content-length": "x"}, "error"),
    ],
)
def test_what_is_no_answer(status, headers, outcome):
    assert Images(DATA).judge(0, Reply(status, headers, b"{}")) == Judged(outcome)


@pytest.mark.parametrize("labels", [[], [1, 2, 3]])
def test_an_answer_of_the_wrong_size_is_an_error(labels):
    assert Images(DATA, batch=2).judge(0, reply(labels)).outcome == "error"


def made_here() -> Images:
    return Images(DATA, model="mine")


def test_other_workloads_are_found_by_name():
    assert load_workload("tests.loadtest.test_workload:made_here").model == "mine"
    for name in ("nowhere:x", "json:nothing", "json"):
        with pytest.raises(ValueError, match=r"package\.module:function"):
            load_workload(name)
