import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.gating.neuron_means import load_means, save_means
from models.gating.profile import Profile
from models.model import GateContext
from models.zoo import text_family
from models.zoo.text_calibration import calibrate, split_texts
from models.zoo.text_embeddings import TextEmbedder
from tests.models.zoo.random_bert import FEED_FORWARD, WORDS, write_random_bert


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
    profile, means = calibrated
    model = TextEmbedder("text", folder, profile, means)
    context = GateContext(1.0)
    inputs = {"text": np.array([text.encode() for text in split_texts(texts)[1]], object)}
    outputs = model.run(inputs, context)
    assert model.agreement(outputs, model.run(inputs, GateContext(0.0))) == pytest.approx(profile.points[-1].agreement)
    assert context.macs == model.dense_macs(inputs)
    assert 1 - context.macs_skipped_ratio == pytest.approx(profile.points[-1].macs_ratio, abs=0.03)
    assert set(context.layers) == set(profile.points[0].thresholds) == {"layer1.positions", "layer2.positions"}


def test_means_are_those_of_the_neurons_and_survive_their_file(folder, texts, calibrated, tmp_path):
    _, means = calibrated
    save_means(means, tmp_path / "means.safetensors")
    model = TextEmbedder("text", folder, means=load_means(tmp_path / "means.safetensors"))
    assert [layer.gate.means.shape for layer in model.encoder.layers] == [(FEED_FORWARD,)] * 2
    seen = []
    for text in split_texts(texts)[0]:
        ids = model.tokens(text.encode())
        model.encoder(ids, GateContext(0.0), watch=lambda i, x, h: seen.append(h) if i else None)
    assert model.encoder.layers[1].gate.means == pytest.approx(np.concatenate(seen).mean(0), abs=1e-4)


def test_means_of_another_encoder_are_refused(folder):
    with pytest.raises(ValueError, match="means of 1 layers"):
        TextEmbedder("text", folder, means=[np.zeros(FEED_FORWARD, np.float32)])
    with pytest.raises(ValueError, match="means of 3"):
        TextEmbedder("text", folder, means=[np.zeros(3, np.float32)] * 2)


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
    assert next(point.macs_ratio for point in reversed(points) if point.agreement >= 0.98) <= 1 / 1.25
    assert all(point.agreement_lower < point.agreement for point in points[1:])
    assert len(load_means(text_family.means_beside(path))) == 6
