import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.text_calibration import calibrate, split_texts
from models.zoo.text_embeddings import TextEmbedder
from tests.models.zoo.random_bert import WORDS, write_random_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(5, 20))) for _ in range(90)]


@pytest.fixture(scope="module")
def profile(folder, texts):
    return calibrate(TextEmbedder("text", folder), *split_texts(texts), lambda done: None, points=5)


def test_a_profile_goes_from_dense_to_the_least_quality(profile):
    assert [point.level for point in profile.points] == [0, 0.25, 0.5, 0.75, 1]
    work = [point.macs_ratio for point in profile.points]
    assert work[0] == 1
    assert work == sorted(work, reverse=True)
    assert work[-1] < 0.97
    for point in profile.points[1:]:
        assert 0.7 < point.agreement_lower < point.agreement < 1


def test_the_served_model_does_what_its_profile_says(folder, texts, profile):
    model = TextEmbedder("text", folder, profile)
    context = GateContext(1.0)
    inputs = {"text": np.array([text.encode() for text in split_texts(texts)[1]], object)}
    outputs = model.run(inputs, context)
    assert model.agreement(outputs, model.run(inputs, GateContext(0.0))) == pytest.approx(profile.points[-1].agreement)
    assert context.macs == model.dense_macs(inputs)
    assert 1 - context.macs_skipped_ratio == pytest.approx(profile.points[-1].macs_ratio, abs=0.03)
    assert set(context.layers) == set(profile.points[0].thresholds) == {"layer1.positions", "layer2.positions"}


def test_a_profile_of_other_weights_is_refused(tmp_path, profile):
    with pytest.raises(ValueError, match="other weights"):
        TextEmbedder("text", write_random_bert(tmp_path, seed=1), profile)


def test_too_few_texts_are_refused():
    with pytest.raises(ValueError, match="at least 30"):
        split_texts(["a"] * 29)
