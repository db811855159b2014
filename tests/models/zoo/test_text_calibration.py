import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.gating.profile import Profile
from models.model import GateContext
from models.zoo import text_family
from models.zoo.text_calibration import calibrate, split_texts
from models.zoo.text_embeddings import TextEmbedder
from models.zoo.text_profile import OtherWeights
from tests.models.zoo.random_bert import WORDS, write_random_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(5, 20))) for _ in range(90)]


@pytest.fixture(scope="module")
def calibrated(folder, texts):
    return calibrate("text", folder, *split_texts(texts), lambda done: None, points=5)


@pytest.fixture(scope="module")
def profile(calibrated):
    return calibrated[0]


def test_a_profile_goes_from_dense_to_the_least_quality(profile):
    assert [point.level for point in profile.points] == [0, 0.25, 0.5, 0.75, 1]
    work = [point.macs_ratio for point in profile.points]
    assert work[0] == 1
    assert work == sorted(work, reverse=True)
    assert work[-1] < 0.97
    for point in profile.points[1:]:
        assert 0.7 < point.agreement_lower < point.agreement < 1


def test_the_served_model_does_what_its_profile_says(folder, texts, calibrated):
    profile, lean = calibrated
    model = TextEmbedder("text", folder, profile, lean)
    measured = []
    for text in split_texts(texts)[1]:
        context, inputs = GateContext(1.0), {"text": np.array([text.encode()], object)}
        agreement = model.agreement(model.run(inputs, context), model.run(inputs, GateContext(0.0)))
        assert context.macs == model.dense_macs(inputs)
        measured.append((agreement, 1 - context.macs_skipped_ratio))
    agreement, macs_ratio = np.mean(measured, axis=0)
    assert agreement == pytest.approx(profile.points[-1].agreement)
    assert macs_ratio == pytest.approx(profile.points[-1].macs_ratio)
    gates = {f"layer{layer}.{gate}" for layer in (1, 2) for gate in ("heads", "scores", "positions", "neurons")}
    assert set(context.layers) == set(profile.points[0].thresholds) == gates - {"layer1.scores"}


def test_a_profile_of_gates_that_are_not_there_is_refused(folder, calibrated):
    with pytest.raises(OtherWeights, match="gates that are not there"):
        TextEmbedder("text", folder, calibrated[0])


def test_a_profile_of_other_weights_is_refused(tmp_path, profile):
    with pytest.raises(ValueError, match="other weights"):
        TextEmbedder("text", write_random_bert(tmp_path, seed=1), profile)


def test_too_few_texts_are_refused():
    with pytest.raises(ValueError, match="at least 30"):
        split_texts(["a"] * 29)


def test_the_packaged_profile_is_a_dial():
    path = text_family.profile_path("minilm")
    assert path is not None
    points = Profile.load(path).points
    assert len(points) >= 12
    assert [point.macs_ratio for point in points] == sorted((point.macs_ratio for point in points), reverse=True)
    agreement, work = zip(*((point.agreement, point.macs_ratio) for point in reversed(points)), strict=True)
    assert np.interp(0.98, agreement, work) <= 1 / 1.3
    assert all(point.agreement_lower < point.agreement for point in points[1:])
    gates = {f"layer{layer}.{gate}" for layer in range(1, 7) for gate in ("heads", "scores", "positions", "neurons")}
    assert set(points[0].thresholds) == gates - {"layer1.scores"}
