"""A small BERT with random weights, as a Hugging Face folder: real files, made in a moment."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "the",
    "a",
    "of",
    "sea",
    "whale",
    "ship",
    "captain",
    "man",
    "old",
    "white",
    "water",
    "and",
    "in",
    "on",
    "was",
    "is",
    "sank",
    "sailed",
    "hunted",
    "saw",
]
HIDDEN, HEADS, FEED_FORWARD, LAYERS, POSITIONS = 64, 2, 160, 2, 40


def write_random_bert(folder: Path, prefix: str = "", seed: int = 0) -> Path:
    """Writes config.json, model.safetensors and tokenizer.json into the folder, which it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert",
                "vocab_size": len(vocabulary),
                "max_position_embeddings": POSITIONS,
                "hidden_size": HIDDEN,
                "num_attention_heads": HEADS,
                "intermediate_size": FEED_FORWARD,
                "num_hidden_layers": LAYERS,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
                "type_vocab_size": 2,
            }
        )
    )
    save_file(_tensors(len(vocabulary), np.random.default_rng(seed), prefix), folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _tensors(vocabulary: int, random: np.random.Generator, prefix: str) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}

    def normal(name: str, *shape: int, scale: float) -> None:
        tensors[prefix + name] = (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(name: str, outputs: int, inputs: int) -> None:
        normal(f"{name}.weight", outputs, inputs, scale=1.5 * inputs**-0.5)
        normal(f"{name}.bias", outputs, scale=0.3)

    def norm(name: str) -> None:
        tensors[f"{prefix}{name}.weight"] = random.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        normal(f"{name}.bias", HIDDEN, scale=0.2)

    for table, rows in (("word", vocabulary), ("position", POSITIONS), ("token_type", 2)):
        normal(f"embeddings.{table}_embeddings.weight", rows, HIDDEN, scale=1)
    norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", FEED_FORWARD, HIDDEN)
        linear(f"{layer}.output.dense", HIDDEN, FEED_FORWARD)
        norm(f"{layer}.output.LayerNorm")
    return tensors
