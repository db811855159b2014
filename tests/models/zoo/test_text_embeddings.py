import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import Cancelled, GateContext, InvalidInput
from models.zoo.text_embeddings import TextEmbedder
from tests.models.zoo.random_bert import HIDDEN, POSITIONS, write_random_bert

TEXTS = (b"The old captain sailed.", b"a white whale", b"", "the sea \N{WHALE} was old".encode())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextEmbedder("text", write_random_bert(tmp_path_factory.mktemp("bert")))


def texts(*values):
    return {"text": np.array(values, object)}


def test_embeddings_are_unit_means_of_the_hidden_states(model):
    embeddings = model.run(texts(*TEXTS), GateContext(0.0))["embedding"]
    assert embeddings.shape == (4, HIDDEN)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1)
    mean = model.encoder(model.tokens(TEXTS[0]), GateContext(0.0)).states.mean(0)
    assert embeddings[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_a_text_does_not_depend_on_the_others_of_its_request(model):
    together = model.run(texts(*TEXTS), GateContext(0.0))["embedding"]
    for text, embedding in zip(TEXTS, together, strict=True):
        assert np.array_equal(model.run(texts(text), GateContext(0.0))["embedding"][0], embedding)


def test_the_work_is_that_of_all_texts(model):
    context = GateContext(0.0)
    model.run(texts(*TEXTS), context)
    assert context.macs == model.dense_macs(texts(*TEXTS)) == sum(model.dense_macs(texts(text)) for text in TEXTS)


def test_a_run_that_nobody_waits_for_ends_at_the_next_text(model):
    asked = []
    context = GateContext(0.0, wanted=lambda: asked.append(1) or len(asked) < 3)
    with pytest.raises(Cancelled):
        model.run(texts(*TEXTS), context)
    assert len(asked) == 3


def test_what_is_too_long_is_cut_off(model):
    long = b" ".join([b"whale"] * 500)
    assert len(model.tokens(long)) == POSITIONS
    assert model.run(texts(long), GateContext(0.0))["embedding"].shape == (1, HIDDEN)


def test_the_folder_says_how_many_tokens_are_read(tmp_path):
    folder = write_random_bert(tmp_path)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    assert len(TextEmbedder("text", folder).tokens(b"the sea " * 20)) == 8


def test_agreement_is_the_mean_cosine(model):
    one = model.run(texts(*TEXTS), GateContext(0.0))
    assert model.agreement(one, one) == pytest.approx(1)
    other = {"embedding": one["embedding"] * np.array([1, 1, -1, 1], np.float32)[:, None]}
    assert model.agreement(other, one) == pytest.approx(0.75)


def test_without_a_profile_it_is_dense(model):
    assert [point.level for point in model.profile.points] == [0]
    assert model.profile.highest_level(0.5) == 0


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "text"),
        ({"words": np.array([b"a"], object)}, "words"),
        ({"text": np.array(["a"], object)}, "text"),
        ({"text": np.array([b"\xff"], object)}, "text"),
        ({"text": np.array([[b"a"]], object)}, "text"),
        ({"text": np.array([], object)}, "text"),
        ({"text": np.zeros(1, np.float32)}, "text"),
    ],
)
def test_an_input_that_does_not_fit_is_named(model, inputs, field):
    with pytest.raises(InvalidInput, match=field) as raised:
        model.check(inputs)
    assert raised.value.field == field
