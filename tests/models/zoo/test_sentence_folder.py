import json

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Encoded
from models.zoo.sentence_folder import POOLINGS, read_sentence_folder, read_token_limit
from models.zoo.text_embeddings import TextEmbedder
from tests.models.zoo.random_bert import HIDDEN, write_random_bert

MODULES = ("Transformer", "Pooling")


def write_modules(folder, *kinds, pooling=("mean_tokens",)):
    """A sentence-transformers folder with these modules, in folders as it names them."""
    paths = ["" if i == 0 else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    for path in paths[1:]:
        (folder / path).mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": HIDDEN, **{f"pooling_mode_{mode}": True for mode in pooling}})
    )
    return folder


@pytest.fixture
def encoded():
    random = np.random.default_rng(0)
    return Encoded(random.standard_normal((3, HIDDEN), dtype=np.float32), np.array([1, 3, 1], np.float32))


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        (["cls_token"], lambda x: x[0]),
        (["max_tokens"], lambda x: x.max(0)),
        (["mean_tokens"], lambda x: x.mean(0)),
        (["mean_sqrt_len_tokens"], lambda x: x.sum(0) / np.sqrt(len(x))),
        (["mean_tokens", "cls_token"], lambda x: np.concatenate([x[0], x.mean(0)])),
    ],
)
def test_the_folder_says_how_states_are_pooled(tmp_path, encoded, pooling, wanted):
    sentence = read_sentence_folder(write_modules(tmp_path, *MODULES, pooling=pooling))
    every_position = np.repeat(encoded.states, encoded.sizes.astype(int), axis=0)
    assert sentence.embed(encoded) == pytest.approx(wanted(every_position), abs=1e-6)


def test_it_is_normalised_where_the_folder_says_so(tmp_path, encoded):
    plain = read_sentence_folder(write_modules(tmp_path / "plain", *MODULES)).embed(encoded)
    unit = read_sentence_folder(write_modules(tmp_path / "unit", *MODULES, "Normalize")).embed(encoded)
    assert np.linalg.norm(plain) != pytest.approx(1, abs=0.1)
    assert unit == pytest.approx(plain / np.linalg.norm(plain))
    (tmp_path / "bare").mkdir()
    assert read_sentence_folder(tmp_path / "bare").embed(encoded) == pytest.approx(unit)


def test_a_dense_layer_comes_after_pooling(tmp_path, encoded):
    folder = write_modules(tmp_path, *MODULES, "Dense", "Normalize")
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((5, HIDDEN), np.float32), random.standard_normal(5, np.float32)
    (folder / "2_Dense" / "config.json").write_text('{"activation_function": "torch.nn.modules.activation.Tanh"}')
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    wanted = np.tanh(weight @ POOLINGS["mean"](encoded) + bias)
    found = read_sentence_folder(folder)
    assert found.embed(encoded) == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)
    model = TextEmbedder("text", write_random_bert(folder))
    assert model.outputs[0].shape == (-1, 5)
    assert model.run({"text": np.array([b"a whale"], object)}, GateContext(0.0))["embedding"].shape == (1, 5)


def test_a_prompt_goes_before_every_text(tmp_path):
    folder = write_random_bert(write_modules(tmp_path, *MODULES))
    plain = TextEmbedder("text", folder).tokens(b"the sea was old")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "the sea "}, "default_prompt_name": "query"})
    )
    assert np.array_equal(TextEmbedder("text", folder).tokens(b"was old"), plain)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        (
            {"sentence_bert_config.json": {"max_seq_length": 256}, "tokenizer_config.json": {"model_max_length": 512}},
            256,
        ),
        ({"sentence_bert_config.json": {}, "tokenizer_config.json": {"model_max_length": 128}}, 128),
        ({"sentence_xlm-roberta_config.json": {"max_seq_length": 64}}, 64),
        ({"tokenizer_config.json": {"model_max_length": 1000000000000000019884624838656}}, None),
        ({"tokenizer_config.json": {"model_max_length": None}}, None),
    ],
)
def test_the_folder_says_how_much_of_a_text_is_read(tmp_path, files, most):
    write_modules(tmp_path, "Transformer", "Pooling")
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_sentence_folder(tmp_path).max_tokens == read_token_limit(tmp_path) == most


@pytest.mark.parametrize("most", ["512", True, [512]])
def test_a_tokenisers_length_that_is_no_number_is_named(tmp_path, most):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": most}))
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: model_max_length must be a number"):
        read_token_limit(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", [{"type": "Transformer", "path": None}], r"modules\.json must be a list of modules"),
        ("modules.json", [{"type": 5, "path": ""}], r"modules\.json must be a list of modules"),
        ("1_Pooling/config.json", {"pooling_mode": None}, r"1_Pooling/config\.json: pooling_mode .*got None"),
        ("1_Pooling/config.json", {"pooling_mode": [["cls"]]}, r"1_Pooling/config\.json: pooling_mode"),
        ("1_Pooling/config.json", {"pooling_mode": {"cls": 1}}, r"1_Pooling/config\.json: pooling_mode"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": ["q"], "prompts": {"q": "the "}},
            r"config_sentence_transformers\.json: default_prompt_name",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q", "prompts": {"q": 5}},
            r"config_sentence_transformers\.json: default_prompt_name",
        ),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, name, content, message):
    (write_modules(tmp_path, *MODULES) / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_sentence_folder(tmp_path)


@pytest.mark.parametrize("most", ["256", 0, True])
def test_a_length_that_is_none_is_named(tmp_path, most):
    write_modules(tmp_path, "Transformer", "Pooling")
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": most}))
    with pytest.raises(ValueError, match=r"sentence_bert_config\.json: max_seq_length must be"):
        read_sentence_folder(tmp_path)


def test_a_prompt_that_is_not_to_be_pooled_is_refused(tmp_path):
    write_modules(tmp_path, "Transformer", "Pooling")
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    path = next(tmp_path.glob("*Pooling/config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": False}))
    with pytest.raises(ValueError, match=r"include_prompt must be true"):
        read_sentence_folder(tmp_path)


def test_the_newest_way_to_name_a_pooling_is_known(tmp_path, encoded):
    folder = write_modules(tmp_path, *MODULES)
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 64, "pooling_mode": "cls"}')
    assert read_sentence_folder(folder).embed(encoded) == pytest.approx(encoded.states[0])


@pytest.mark.parametrize(
    ("kinds", "pooling", "message"),
    [
        (("Transformer", "Pooling"), ["lasttoken"], r"1_Pooling/config\.json: pooling_mode .*got lasttoken"),
        (("Transformer", "Pooling", "WordWeights"), ["mean_tokens"], r"modules\.json: type 'WordWeights' is not known"),
        (("BoW", "Pooling"), ["mean_tokens"], r"modules\.json: type must be Transformer, then Pooling, got BoW"),
    ],
)
def test_what_cannot_be_followed_is_named(tmp_path, kinds, pooling, message):
    with pytest.raises(ValueError, match=message):
        read_sentence_folder(write_modules(tmp_path, *kinds, pooling=pooling))
