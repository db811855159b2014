"""Every member of BERT's family, and every head, beside `transformers`: within 1e-3, padded batches too."""

import json

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.bert_shape import read_shape
from models.zoo.distances import buckets
from models.zoo.lean_fitting import fit_lean
from models.zoo.text_classifier import TextClassifier
from models.zoo.text_embeddings import TextEmbedder
from models.zoo.text_model import encoder_folder, open_text_model
from models.zoo.text_reader import Tokens
from tests.models.zoo.random_encoders import KINDS, PAIRS, TEXTS, logits, states, transformers, write_encoder

every_kind = pytest.mark.parametrize("kind", KINDS)


def request(*texts):
    if isinstance(texts[0], tuple):
        columns = zip(*texts, strict=True)
        return {
            name: np.array([text.encode() for text in column], object)
            for name, column in zip(("text", "text_pair"), columns, strict=True)
        }
    return {"text": np.array([text.encode() for text in texts], object)}


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max()


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def softmax(values):
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@every_kind
def test_hidden_states_and_embeddings_are_those_of_the_oracle(tmp_path, kind):
    model = open_text_model("text", write_encoder(tmp_path, kind))
    assert isinstance(model, TextEmbedder)
    wanted = states(tmp_path, TEXTS)
    for tokens, expected in zip(model.read(request(*TEXTS)), wanted, strict=True):
        assert_close(model.encoder(tokens.ids, GateContext(0.0)).states, expected)
    means = np.stack([expected.mean(0) for expected in wanted])
    embeddings = model.run(request(*TEXTS), GateContext(0.0))["embedding"]
    assert_close(embeddings, means / np.linalg.norm(means, axis=1, keepdims=True))


@every_kind
def test_classes_are_those_of_the_oracle(tmp_path, kind):
    names = {0: "bad", 1: "so so", 2: "good"}
    model = open_text_model("text", write_encoder(tmp_path, kind, "ForSequenceClassification", id2label=names))
    assert isinstance(model, TextClassifier)
    context = GateContext(0.0)
    answer = model.run(request(*TEXTS), context)
    wanted = softmax(logits(tmp_path, TEXTS))
    assert_close(answer["probabilities"], wanted)
    assert np.array_equal(answer["label"], wanted.argmax(1))
    assert [spec.name for spec in model.outputs] == ["probabilities", "label"]
    assert model.outputs[0].labels == ("bad", "so so", "good")
    assert context.macs == model.dense_macs(request(*TEXTS))


@every_kind
def test_scores_of_pairs_are_those_of_the_oracle(tmp_path, kind):
    model = open_text_model("rank", write_encoder(tmp_path, kind, "ForSequenceClassification", num_labels=1))
    answer = model.run(request(*PAIRS), GateContext(0.0))
    assert_close(answer["score"], sigmoid(logits(tmp_path, PAIRS)[:, 0]))
    assert answer["score"].shape == (len(PAIRS),)
    assert model.agreement(answer, answer) == 1


@pytest.mark.parametrize(
    ("config", "output", "meaning"),
    [
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            "probabilities",
            sigmoid,
        ),
        ({"num_labels": 2, "problem_type": "regression"}, "scores", lambda x: x),
        ({"num_labels": 1, "problem_type": "regression"}, "score", lambda x: x[:, 0]),
        ({"num_labels": 1, "sbert_ce_default_activation_function": "torch.nn.Identity"}, "score", lambda x: x[:, 0]),
    ],
)
def test_the_config_says_what_the_numbers_mean(tmp_path, config, output, meaning):
    model = open_text_model("text", write_encoder(tmp_path, "distilbert", "ForSequenceClassification", **config))
    answer = model.run(request(*TEXTS), GateContext(0.0))
    assert set(answer) == {output}
    assert_close(answer[output], meaning(logits(tmp_path, TEXTS)))


def test_agreement_is_how_near_the_answers_are(tmp_path):
    model = open_text_model("text", write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=2))
    one = {"probabilities": np.array([[0.9, 0.1], [0.5, 0.5]]), "label": np.array([0, 0])}
    other = {"probabilities": np.array([[0.7, 0.3], [0.5, 0.5]]), "label": np.array([0, 0])}
    assert model.agreement(one, other) == pytest.approx(0.9)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_weights_in_several_files_are_the_same_model(tmp_path, kind):
    write_encoder(tmp_path / "one", kind)
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "one")
    loaded.save_pretrained(tmp_path / "several", max_shard_size="60KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    ids = np.array([2, 5, 9, 3])
    one, several = (Bert(tmp_path / name)(ids, GateContext(0.0)).states for name in ("one", "several"))
    assert np.array_equal(one, several)


def test_an_encoder_that_knows_distances_has_gates_on_channels_alone(tmp_path):
    folder, random = write_encoder(tmp_path, "mpnet"), np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 20, random.integers(5, 20))) for _ in range(30)]
    encoder = Bert(folder, fit_lean(Bert(folder), sequences))
    assert encoder.position_gates == ()
    context = GateContext(0.0)
    encoder(np.array([0, 5, 9, 7, 2]), context, {"layer1.neurons": 1.0})
    assert context.layers["layer1.neurons"].skipped > 0


def test_distances_are_in_the_oracles_buckets():
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    away = np.arange(-600, 601)
    for count in (32, 16):
        wanted = MPNetEncoder.relative_position_bucket(torch.from_numpy(away), num_buckets=count)
        assert np.array_equal(buckets(away, count), wanted.numpy())


def test_a_classifier_takes_texts_or_as_many_pairs(tmp_path):
    from models.model import InvalidInput

    model = open_text_model("text", write_encoder(tmp_path, "roberta", "ForSequenceClassification", num_labels=1))
    pairs = request(*PAIRS)
    model.check(pairs)
    model.check({"text": pairs["text"]})
    with pytest.raises(InvalidInput, match=r"text_pair: must have as many texts as text"):
        model.check({"text": pairs["text"], "text_pair": pairs["text_pair"][:1]})
    with pytest.raises(InvalidInput, match=r"^text: .* needs this input"):
        model.check({"text_pair": pairs["text_pair"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["BertForTokenClassification"]}, r"architectures is 'BertForTokenClassification'"),
        ({"model_type": "t5"}, r"config\.json: model_type must be one of bert, .*got 't5'"),
        ({"hidden_act": "relu"}, r"config\.json: hidden_act must be 'gelu'"),
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type"),
        ({"is_decoder": True}, r"is_decoder"),
        ({"vocab_size": 99}, r"vocab_size"),
        ({"num_hidden_layers": 5}, r"no tensor 'encoder.layer.2"),
        ({"hidden_size": None}, r"config\.json: hidden_size must be a whole number"),
        ({"hidden_size": "24"}, r"config\.json: hidden_size must be a whole number .*'24'"),
        ({"num_attention_heads": 0}, r"config\.json: num_attention_heads must be"),
        ({"layer_norm_eps": "1e-12"}, r"config\.json: layer_norm_eps must be a number"),
        ({"max_position_embeddings": -1}, r"config\.json: max_position_embeddings must be"),
        ({"max_position_embeddings": 99}, r"position_embeddings.* config\.json says \[99, .*max_position_embeddings"),
        ({"intermediate_size": 7}, r"intermediate\.dense\.weight.* config\.json says \[7, .*intermediate_size"),
        ({"model_type": ["bert"]}, r"config\.json: model_type must be one of bert"),
        ({"architectures": 5}, r"config\.json: architectures must be a list"),
        ({"architectures": {"BertModel": 1}}, r"config\.json: architectures must be a list"),
        ({"architectures": "BertForSequenceClassification"}, r"config\.json: architectures must be a list"),
    ],
)
def test_a_folder_that_does_not_fit_says_which_field(tmp_path, change, message):
    config = write_encoder(tmp_path, "bert") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        open_text_model("text", tmp_path)


@pytest.mark.parametrize("padding", [None, -1, "1"])
def test_a_padding_that_numbers_no_positions_is_named(tmp_path, padding):
    config = write_encoder(tmp_path, "roberta") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token_id": padding}))
    with pytest.raises(ValueError, match=r"config\.json: pad_token_id must be"):
        open_text_model("text", tmp_path)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet"])
def test_what_a_configuration_does_not_say_is_as_the_oracle_has_it(tmp_path, kind):
    path = write_encoder(tmp_path, kind) / "config.json"
    config = json.loads(path.read_text())
    for key in ("layer_norm_eps", "hidden_act", "activation", "max_position_embeddings", "pad_token_id"):
        config.pop(key, None)
    path.write_text(json.dumps(config))
    oracle, shape = transformers.AutoConfig.from_pretrained(tmp_path), read_shape(config)
    assert shape.positions + shape.first_position == oracle.max_position_embeddings
    assert shape.epsilon == getattr(oracle, "layer_norm_eps", 1e-12)
    if kind == "roberta":
        assert shape.first_position == oracle.pad_token_id + 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "a", "1": "b"}, r"id2label has 2 classes, and the classifier 3"),
        (["a", "b", "c"], r"id2label must be an object"),
        ({"a": 0, "b": 1, "c": 2}, r"id2label must be an object whose keys are numbers"),
    ],
)
def test_classes_that_do_not_fit_the_head_are_refused(tmp_path, labels, message):
    config = write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=3) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"id2label": labels}))
    with pytest.raises(ValueError, match=message):
        open_text_model("text", tmp_path)


@pytest.mark.parametrize(("activation", "meaning"), [("Identity", lambda x: x), ("Sigmoid", sigmoid)])
def test_a_cross_encoder_without_pooling_says_beside_its_modules_what_its_score_is(tmp_path, activation, meaning):
    folder = write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    module = {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "CrossEncoder", "activation_fn": f"torch.nn.modules.activation.{activation}"})
    )
    answer = open_text_model("rank", folder).run(request(*PAIRS), GateContext(0.0))
    assert_close(answer["score"], meaning(logits(tmp_path, PAIRS)[:, 0]))


def test_the_encoder_of_a_cross_encoder_without_pooling_is_found(tmp_path):
    folder = write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    (folder / "modules.json").write_text(json.dumps([{"path": "", "type": "Transformer"}]))
    assert encoder_folder(folder) == folder


@pytest.mark.parametrize("problem", [["regression"], 5, "ranking"])
def test_a_problem_that_is_not_known_is_named(tmp_path, problem):
    config = write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=3) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"problem_type": problem}))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}/config\.json: problem_type must be of"):
        open_text_model("text", tmp_path)


def test_a_classifier_reads_as_much_as_its_tokeniser_says(tmp_path):
    folder = write_encoder(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 9}))
    assert open_text_model("rank", folder).max_tokens == 9


@pytest.mark.parametrize("head", ["Model", "ForSequenceClassification"])
def test_loading_tells_how_far_it_is(tmp_path, head):
    told = []
    open_text_model("text", write_encoder(tmp_path, "bert", head), report=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 2
