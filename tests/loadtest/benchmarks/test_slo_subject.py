from contextlib import contextmanager

import orjson
import pytest

from loadtest.benchmarks.journal import Journal
from loadtest.benchmarks.slo import compare
from loadtest.benchmarks.slo_plan import Plan
from loadtest.benchmarks.slo_subject import floor_of, subject_of
from loadtest.driver import Address
from loadtest.texts import Texts
from models.gating.profile import Profile
from models.zoo import catalog
from tests.live import serve
from tests.models.zoo.random_bert import write_random_bert


def test_a_floor_is_what_a_server_takes():
    profile = Profile.dense("words", "")
    assert (floor_of(profile, 0.9).quality, floor_of(profile, 0.9).accuracy) == (0.9, None)


def test_the_image_network_may_lose_points_of_accuracy():
    subject = subject_of("fashion", None, True, 1.0, 0.5)
    assert (subject.model, subject.score) == ("fashion", "accuracy")
    assert subject.floor.accuracy == pytest.approx(catalog.load("fashion").profile.points[0].accuracy - 0.01, abs=2e-3)
    assert subject.workload({"level": 0.5}).model == "fashion"


def test_a_model_that_makes_no_embeddings_says_so(tmp_path):
    with pytest.raises(catalog.UnknownModel):
        subject_of("nobody", None, False, 1.0, 0.9)
    with pytest.raises(ValueError, match="cannot be put under this load"):
        subject_of("smollm2", None, False, 1.0, 0.9)


def test_a_folder_of_texts_under_bursts(tmp_path):
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    folder = write_random_bert(tmp_path / "words")
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat\nthe dog sat\n")
    subject = subject_of(str(folder), texts, False, 1.0, 0.9)
    assert isinstance(subject.workload({}), Texts)

    @contextmanager
    def start():
        with serve([catalog.load(str(folder))], tmp_path / "home", executors=1) as server:
            host, port = server.address.split(":")
            yield Address(host, int(port))

    plan = Plan(
        (1.5,), bursts=1, burst_seconds=0.1, calibration_seconds=0.1, warm_up_seconds=0.1, check_seconds=0.1, repeats=0
    )
    found = compare(plan, subject, start, journal=Journal(tmp_path / "journal"))
    assert [run["quality"] for run in found["runs"]] == pytest.approx([1.0] * 4)
    assert orjson.loads((tmp_path / "journal").read_bytes().splitlines()[0])["plan"]["model"] == "words"
