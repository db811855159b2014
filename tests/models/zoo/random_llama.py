"""Small Llamas and their kin with random weights, as Hugging Face folders: real files, made in a moment."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HIDDEN, HEADS, KEY_HEADS, HEAD_SIZE, FEED_FORWARD, LAYERS = 48, 6, 2, 8, 112, 3
POSITIONS = 96
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True, "rope_theta": 10_000.0},
    "llama3": {"model_type": "llama", "rope_parameters": LLAMA3},
    "biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 9},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2 window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}


def write_random_llama(folder: Path, family: str = "llama", shards: int = 1, seed: int = 0, **more: object) -> Path:
    """Writes config.json, the weights and the tokeniser into the folder, which it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": POSITIONS,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD_SIZE,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        **FAMILIES[family],
        **more,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = _tensors(config, np.random.default_rng(seed))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, one for two of them, and those of ChatML."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters, "th"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _tensors(config: dict[str, object], random: np.random.Generator) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    vocabulary, head_size = config["vocab_size"], config["head_dim"]
    width, key_width = HEADS * head_size, KEY_HEADS * head_size
    qkv_bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)

    def linear(name: str, outputs: int, inputs: int, bias: bool = False) -> None:
        scale = 1.5 * inputs**-0.5
        tensors[f"{name}.weight"] = (random.standard_normal((outputs, inputs)) * scale).astype(np.float32)
        if bias:
            tensors[f"{name}.bias"] = (random.standard_normal(outputs) * 0.3).astype(np.float32)

    def norm(name: str, size: int = HIDDEN) -> None:
        tensors[f"{name}.weight"] = random.uniform(0.5, 1.5, size).astype(np.float32)

    linear("model.embed_tokens", vocabulary, HIDDEN)
    norm("model.norm")
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocabulary, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        norm(f"{layer}.input_layernorm")
        norm(f"{layer}.post_attention_layernorm")
        linear(f"{layer}.self_attn.q_proj", width, HIDDEN, qkv_bias)
        for part in "kv":
            linear(f"{layer}.self_attn.{part}_proj", key_width, HIDDEN, qkv_bias)
        linear(f"{layer}.self_attn.o_proj", HIDDEN, width, bool(config.get("attention_bias")))
        if config["model_type"] == "qwen3":
            norm(f"{layer}.self_attn.q_norm", head_size)
            norm(f"{layer}.self_attn.k_norm", head_size)
        for part in ("gate", "up"):
            linear(f"{layer}.mlp.{part}_proj", FEED_FORWARD, HIDDEN, bool(config.get("mlp_bias")))
        linear(f"{layer}.mlp.down_proj", HIDDEN, FEED_FORWARD, bool(config.get("mlp_bias")))
    return tensors
