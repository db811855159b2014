"""Small encoders of every member of BERT's family with random weights, made and saved by `transformers`, the oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.models.zoo.random_bert import WORDS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ("the old captain sailed", "a white whale", "the sea the sea the sea was old and white", "ship")
PAIRS = (("the whale sank", "a ship"), ("old man", "the sea was white and old and the captain saw"), ("a", "a"))
POSITIONS = 30

BERT = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "initializer_range": 0.2,
}
DISTILBERT = {"dim": 64, "n_heads": 2, "hidden_dim": 96, "n_layers": 2, "initializer_range": 0.2}
KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")


def write_encoder(folder: Path, kind: str, head: str = "Model", seed: int = 0, **config) -> Path:
    """Writes a folder of this `model_type` with this head ("Model", "ForSequenceClassification"); returns it."""
    numbered_from_padding = kind in ("roberta", "xlm-roberta", "mpnet")
    first = 2 if numbered_from_padding else 0
    made = transformers.AutoConfig.for_model(
        kind,
        vocab_size=4 + len(WORDS),
        max_position_embeddings=POSITIONS + first,
        pad_token_id=1 if numbered_from_padding else 0,
        **({"type_vocab_size": 1} if kind in ("roberta", "xlm-roberta") else {}),
        **(DISTILBERT if kind == "distilbert" else BERT),
        **config,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"Auto{head if head == 'Model' else 'ModelFor' + head.removeprefix('For')}")
    built = model.from_config(made)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):  # which all start as ones or zeros
                parameter.add_(0.2 * torch.randn_like(parameter))
    built.save_pretrained(folder)
    special = ("<s>", "<pad>", "</s>", "<unk>") if numbered_from_padding else ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    _write_tokenizer(folder, special, "mpnet" if kind == "mpnet" else "roberta" if numbered_from_padding else "bert")
    return folder


def _write_tokenizer(folder: Path, special: tuple[str, ...], template: str) -> None:
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    unknown = next(word for word in special if "unk" in word.lower())
    start, end = (special[0], special[2]) if template != "bert" else (special[2], special[3])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    between = f"{end} {end} $B {end}" if template != "bert" else f"{end} $B:1 {end}:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {between}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "padding.json").write_text(json.dumps({"pad": special[1] if template != "bert" else special[0]}))


def oracle(folder: Path, texts, head: str = "Model"):
    """The oracle's model and what it makes of a padded batch of texts, or pairs of them: its output, and the mask."""
    padding = json.loads((folder / "padding.json").read_text())["pad"]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=padding)
    given = [list(part) for part in zip(*texts, strict=True)] if isinstance(texts[0], tuple) else [list(texts)]
    batch = tokenizer(*given, padding=True, return_tensors="pt", return_token_type_ids=True)
    loader = transformers.AutoModel if head == "Model" else transformers.AutoModelForSequenceClassification
    model = loader.from_pretrained(folder, attn_implementation="eager").eval()
    if not _takes_types(model):
        del batch["token_type_ids"]
    with torch.no_grad():
        return model(**batch), batch["attention_mask"].bool().numpy()


def states(folder: Path, texts) -> list[np.ndarray]:
    """The oracle's last hidden states of each text of a padded batch, without the padding."""
    output, mask = oracle(folder, texts)
    return [row[kept] for row, kept in zip(output.last_hidden_state.numpy(), mask, strict=True)]


def logits(folder: Path, texts) -> np.ndarray:
    """The oracle's, of a padded batch: [texts, labels]."""
    return oracle(folder, texts, "ForSequenceClassification")[0].logits.numpy()


def _takes_types(model) -> bool:
    return getattr(model.config, "type_vocab_size", 0) > 1 and model.config.model_type == "bert"
