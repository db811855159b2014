"""Both ways in which a Whisper lies on disk."""

import json
import struct

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.model import GateContext
from models.zoo import ctranslate2
from models.zoo.whisper import Whisper
from models.zoo.whisper_files import is_whisper, read_whisper
from models.zoo.whisper_languages import CODES
from tests.models.zoo.random_whisper import HEADS, LANGUAGES, LAYERS, MELS, POSITIONS, config, write_random_whisper


def text(value):
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def tensor(name, values):
    kinds = {"float32": 0, "int16": 2, "int32": 3, "float16": 4}
    data = values.tobytes()
    head = struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
    return text(name) + head + struct.pack("<BI", kinds[values.dtype.name], len(data)) + data


def write_ctranslate2(folder, source, kind="WhisperSpec"):
    """The weights of a Hugging Face folder as a `model.bin`, in float16."""
    stored = read_whisper(source).tensors
    tensors = {"encoder/num_heads": np.array([HEADS], np.int16), "decoder/num_heads": np.array([HEADS], np.int16)}

    def put(name, *parts, norm=False):
        for theirs, ours in (("gamma", "weight"), ("beta", "bias")) if norm else (("weight",) * 2, ("bias",) * 2):
            values = [
                np.zeros(len(stored[f"{part}.weight"])) if part.endswith("k_proj") and ours == "bias"
                else stored[f"{part}.{ours}"]
                for part in parts
            ]  # fmt: skip
            tensors[f"{name}/{theirs}"] = np.concatenate(values).astype(np.float16)

    for name, ours in (("encoder/position_encodings/encodings", "encoder.embed_positions"),
                       ("decoder/position_encodings/encodings", "decoder.embed_positions"),
                       ("decoder/embeddings/weight", "decoder.embed_tokens")):  # fmt: skip
        tensors[name] = stored[f"{ours}.weight"].astype(np.float16)
    put("encoder/conv1", "encoder.conv1")
    put("encoder/conv2", "encoder.conv2")
    for part in ("encoder", "decoder"):
        put(f"{part}/layer_norm", f"{part}.layer_norm", norm=True)
        for i in range(LAYERS):
            theirs, ours = f"{part}/layer_{i}", f"{part}.layers.{i}"
            put(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", norm=True)
            put(f"{theirs}/self_attention/linear_0", *(f"{ours}.self_attn.{name}_proj" for name in "qkv"))
            put(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            put(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", norm=True)
            put(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            put(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            if part == "decoder":
                put(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm", norm=True)
                put(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
                put(f"{theirs}/attention/linear_1", *(f"{ours}.encoder_attn.{name}_proj" for name in "kv"))
                put(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
    folder.mkdir()
    body = b"".join(tensor(name, values) for name, values in tensors.items())
    aliases = struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    head = struct.pack("<I", 6) + text(kind) + struct.pack("<II", 3, len(tensors))
    (folder / "model.bin").write_bytes(head + body + aliases)
    (folder / "tokenizer.json").write_text((source / "tokenizer.json").read_text())
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [1, -1], "suppress_ids_begin": [10]}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_whisper(tmp_path_factory.mktemp("whisper"))


def test_ctranslate2s_file_is_the_same_model(folder, tmp_path):
    converted = write_ctranslate2(tmp_path / "converted", folder)
    assert is_whisper(converted)
    files, wanted = read_whisper(converted), read_whisper(folder)
    assert files.shape == wanted.shape
    assert set(files.tensors) >= set(wanted.tensors)
    assert (files.tokens.suppressed, files.tokens.suppressed_first) == ((1,), (10,))
    assert ctranslate2.CTranslate2Tensors(converted / "model.bin")["decoder/projection/weight"].shape[1] == 64
    spectrum = np.random.default_rng(0).uniform(-1, 1, (2 * POSITIONS, MELS)).astype(np.float32)
    outputs = []
    for each in (files, wanted):
        model, context = Whisper(each.shape, each.tensors), GateContext(0.0)
        heard = model.encode(spectrum, 2 * POSITIONS, context)
        outputs.append(model.step([16, 17, 21, 25], model.listen(heard, context), context).logits)
    assert np.abs(outputs[0] - outputs[1]).max() < 0.02 * np.abs(outputs[1]).max()


def test_tokens_with_a_meaning(folder, tmp_path):
    tokens = read_whisper(folder).tokens
    assert list(tokens.languages) == LANGUAGES
    assert tokens.first_timestamp == tokens.no_timestamps + 1
    assert tokens.no_speech == tokens.no_timestamps - 1
    assert read_whisper(write_random_whisper(tmp_path, multilingual=False)).tokens.languages == {}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.json", '{"model_type": "bert"}', "model_type must be 'whisper'"),
        ("config.json", '{"model_type": "whisper"}', "lacks 'num_mel_bins'"),
        ("config.json", json.dumps(config() | {"d_model": "64"}), "d_model must be a whole number of at least 1"),
        ("config.json", json.dumps(config() | {"encoder_layers": None}), "encoder_layers must be a whole number"),
        ("config.json", json.dumps(config() | {"decoder_attention_heads": 0}), "decoder_attention_heads must be"),
        ("config.json", json.dumps(config() | {"encoder_attention_heads": 3}), "multiple of encoder_attention_heads"),
        ("tokenizer.json", "{", r"tokenizer\.json is no tokenizer that can be read"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1", "it is a git-lfs pointer"),
        ("generation_config.json", '{"is_multilingual": true, "language": "latin"}', "language must be .* got 'latin'"),
        ("generation_config.json", '{"is_multilingual": true, "task": "sing"}', "task must be .* got 'sing'"),
        ("generation_config.json", '{"is_multilingual": true, "forced_decoder_ids": [5]}', "must be pairs"),
        ("model.safetensors", "nonsense", "no safetensors"),
    ],
)
def test_other_files_say_what_is_wrong(tmp_path, name, content, why):
    folder = write_random_whisper(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=why):
        read_whisper(folder)


def test_a_missing_tokenizer_is_named(tmp_path):
    folder = write_random_whisper(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        read_whisper(folder)


@pytest.mark.parametrize(
    ("settings", "language", "task"),
    [
        ({}, None, "transcribe"),
        ({"language": "German"}, "de", "transcribe"),
        ({"language": "<|fr|>", "task": "translate"}, "fr", "translate"),
        ({"task": "translate"}, None, "translate"),
        ({"forced_decoder_ids": [[1, 18], [2, 20]]}, "de", "translate"),
        ({"forced_decoder_ids": [[1, None], [2, 21]]}, None, "transcribe"),
        ({"language": "fr", "forced_decoder_ids": [[1, 18], [2, 20]]}, "fr", "transcribe"),
    ],
)
def test_a_folders_own_language_and_task(tmp_path, settings, language, task):
    folder = write_random_whisper(tmp_path)
    place = folder / "generation_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | settings))
    files = read_whisper(folder)
    assert files.tokens.language == language
    assert files.tokens.task == files.tokenizer.token_to_id(f"<|{task}|>")


def test_the_tokens_that_follow_the_first_one_may_be_in_the_configuration(tmp_path):
    folder = write_random_whisper(tmp_path)
    (folder / "generation_config.json").write_text('{"is_multilingual": true}')
    (folder / "config.json").write_text(json.dumps(config() | {"forced_decoder_ids": [[1, 19], [2, 21], [3, 25]]}))
    assert read_whisper(folder).tokens.language == "fr"


def test_names_of_languages_are_transformers():
    tokenization = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
    assert dict(CODES) == tokenization.TO_LANGUAGE_CODE


@pytest.mark.parametrize("cut", [0, 3, 20, 200, -30])
def test_a_torn_model_bin_is_no_stack_trace(folder, tmp_path, cut):
    converted = write_ctranslate2(tmp_path / "converted", folder)
    whole = (converted / "model.bin").read_bytes()
    (converted / "model.bin").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"model\.bin is no"):
        read_whisper(converted)


def test_another_model_of_ctranslate2_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is no Whisper, but 'TransformerSpec'"):
        read_whisper(write_ctranslate2(tmp_path / "converted", folder, "TransformerSpec"))


def test_a_pointer_in_place_of_a_model_bin_is_told(folder, tmp_path):
    converted = write_ctranslate2(tmp_path / "converted", folder)
    (converted / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"model\.bin .*git-lfs pointer"):
        read_whisper(converted)
