"""A small Whisper with random weights, as a Hugging Face folder: real files, made in a moment."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MELS, POSITIONS, HIDDEN, HEADS, FEED_FORWARD, LAYERS, CONTEXT = 80, 50, 64, 2, 160, 2, 64
WORDS = ["a", "sea", "whale", "ship", "Ġthe", "Ġsea", "Ġwhale", "Ġship", "Ġsank", "Ġold", "Ġ", ".", ",", "Ġone", "Ġtwo"]
LANGUAGES = ["en", "de", "fr"]
TIMES = POSITIONS + 1


def special_tokens(multilingual: bool = True) -> list[str]:
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm", "startofprev"]
    return [f"<|{name}|>" for name in [*names, "nospeech", "notimestamps"]]


def config() -> dict:
    return {
        "model_type": "whisper",
        "num_mel_bins": MELS,
        "max_source_positions": POSITIONS,
        "max_target_positions": CONTEXT,
        "d_model": HIDDEN,
        "vocab_size": len(WORDS) + len(special_tokens()) + TIMES,
        "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": FEED_FORWARD,
        "decoder_layers": LAYERS,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": FEED_FORWARD,
        "activation_function": "gelu",
        "scale_embedding": False,
    }


def write_random_whisper(folder: Path, multilingual: bool = True, seed: int = 0) -> Path:
    """Writes config.json, generation_config.json, model.safetensors and tokenizer.json into the folder, which it
    returns. The window is one second."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: i for i, name in enumerate([*WORDS, *special_tokens()])}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    (folder / "config.json").write_text(json.dumps(config() | special))
    settings = {
        "is_multilingual": multilingual,
        # A trained model hardly ever says one of the special tokens; a random one would.
        "suppress_tokens": [1, *(id for name, id in ids.items() if name.startswith("<|") and id != end)],
        "begin_suppress_tokens": [ids["Ġ"], end],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "max_length": CONTEXT,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings | special))
    save_file(random_tensors(np.random.default_rng(seed)), folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    times = [f"<|{i * 0.02:.2f}|>" for i in range(TIMES)]
    tokenizer.add_special_tokens([*special_tokens(), *times])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def random_tensors(random: np.random.Generator) -> dict[str, np.ndarray]:
    """By Hugging Face's names."""
    tensors: dict[str, np.ndarray] = {}

    def normal(name: str, *shape: int, scale: float) -> None:
        tensors[f"model.{name}"] = (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> None:
        normal(f"{name}.weight", outputs, inputs, scale=1.2 * inputs**-0.5)
        if bias:
            normal(f"{name}.bias", outputs, scale=0.2)

    def norm(name: str) -> None:
        tensors[f"model.{name}.weight"] = random.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        normal(f"{name}.bias", HIDDEN, scale=0.2)

    for i, inputs in ((1, MELS), (2, HIDDEN)):
        normal(f"encoder.conv{i}.weight", HIDDEN, inputs, 3, scale=(3 * inputs) ** -0.5)
        normal(f"encoder.conv{i}.bias", HIDDEN, scale=0.2)
    normal("encoder.embed_positions.weight", POSITIONS, HIDDEN, scale=1)
    normal("decoder.embed_positions.weight", CONTEXT, HIDDEN, scale=1)
    normal("decoder.embed_tokens.weight", config()["vocab_size"], HIDDEN, scale=0.5)
    for part in ("encoder", "decoder"):
        norm(f"{part}.layer_norm")
        for i in range(LAYERS):
            layer = f"{part}.layers.{i}"
            for attending in ("self_attn", "encoder_attn")[: 1 if part == "encoder" else 2]:
                for which in "qkv":
                    linear(f"{layer}.{attending}.{which}_proj", HIDDEN, HIDDEN, bias=which != "k")
                linear(f"{layer}.{attending}.out_proj", HIDDEN, HIDDEN)
                norm(f"{layer}.{attending}_layer_norm")
            linear(f"{layer}.fc1", FEED_FORWARD, HIDDEN)
            linear(f"{layer}.fc2", HIDDEN, FEED_FORWARD)
            norm(f"{layer}.final_layer_norm")
    return tensors
