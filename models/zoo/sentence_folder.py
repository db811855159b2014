"""How a sentence-transformers folder (Reimers and Gurevych 2019) makes an embedding of an encoder's last hidden states:
`modules.json` lists the steps, each with a folder of its own. A folder without one is taken to mean what most of them
say: the mean over the tokens, normalised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.bert import Encoded
from models.zoo.folder import Tensors, read_any_json, read_json, weights_path

Array = NDArray[np.float32]
Step = Callable[[Array], Array]


def _mean_by_root(encoded: Encoded) -> Array:
    summed: Array = encoded.sizes @ encoded.states / np.sqrt(encoded.sizes.sum())
    return summed


def _largest(encoded: Encoded) -> Array:
    largest: Array = encoded.states.max(0)
    return largest


# The first position is never joined with others; of a joined one the largest is that of the mean.
POOLINGS: Mapping[str, Callable[[Encoded], Array]] = MappingProxyType(
    {
        "cls": lambda encoded: encoded.states[0],
        "max": _largest,
        "mean": lambda encoded: encoded.mean,
        "mean_sqrt_len_tokens": _mean_by_root,
    }
)
"""By the name in `1_Pooling/config.json`, in the order in which several are put side by side."""

ACTIVATIONS: Mapping[str, Step] = MappingProxyType(
    {"Tanh": np.tanh, "Identity": lambda x: x, "ReLU": lambda x: np.maximum(x, 0)}
)


SENTENCE_CONFIG = "config_sentence_transformers.json"
_LIMITED = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
"""sentence-transformers says in a file that is named after one of them how much is read; the first that is there."""

_UNLIMITED = 1e9
"""Of what is above it transformers means that a tokeniser has no limit."""


@dataclass(frozen=True, slots=True)
class SentenceFolder:
    """`encoder` is the folder of the encoder; `pooling` the names of what is pooled, `steps` what is done with that.
    `size` is the embedding's, where a step changes it. `prompt` goes before every text, and `max_tokens` are read
    (None: as many as there are positions), in lower case where `lower`."""

    encoder: Path
    pooling: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = ()
    size: int | None = None
    normalised: bool = True
    prompt: str = ""
    max_tokens: int | None = None
    lower: bool = False

    def embed(self, encoded: Encoded) -> Array:
        """The embedding of a sequence, [size]."""
        pooled = np.concatenate([POOLINGS[name](encoded) for name in self.pooling])
        for step in self.steps:
            pooled = step(pooled)
        return normalise(pooled) if self.normalised else pooled


def is_sentence_folder(folder: Path) -> bool:
    """Whether it says how embeddings are made."""
    return (folder / "modules.json").exists()


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """Raises `FileNotFoundError`, or `ValueError` naming the file and the field that cannot be followed."""
    if not is_sentence_folder(folder):
        return SentenceFolder(folder, **_limits(folder))
    path = folder / "modules.json"
    modules = read_any_json(path)
    if not isinstance(modules, list) or not all(_is_module(module) for module in modules):
        raise ValueError(f"{path} must be a list of modules, each with type and path")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ValueError(f"{path}: type must be Transformer, then Pooling, got {', '.join(kinds)}")
    encoder = folder / modules[0]["path"]
    prompt = _prompt(folder)
    pooling = _pooling(folder / modules[1]["path"] / "config.json", bool(prompt))
    steps: list[Step] = []
    size = None
    for kind, module in zip(kinds[2:], modules[2:], strict=True):
        if kind == "Dense":
            step, size = _dense(folder / module["path"])
            steps.append(step)
        elif kind == "Normalize":
            steps.append(normalise)
        else:
            raise ValueError(f"{path}: type {kind!r} is not known; after Pooling are: Dense, Normalize")
    return SentenceFolder(encoder, pooling, tuple(steps), size, False, prompt, **_limits(encoder))


def read_token_limit(folder: Path) -> int | None:
    """How many tokens are read of a text or a pair, by a folder whatever its head is: a cross-encoder's may have a
    `modules.json` without a pooling. None: as many as there are positions. Raises as `read_sentence_folder`."""
    limit: int | None = _limits(folder)["max_tokens"]
    return limit


def normalise(x: Array) -> Array:
    """A unit vector; zeros stay zeros."""
    unit: Array = x / np.maximum(np.linalg.norm(x), np.float32(1e-12))
    return unit


def _is_module(module: Any) -> bool:
    return isinstance(module, dict) and all(isinstance(module.get(field), str) for field in ("type", "path"))


def _pooling(path: Path, prompted: bool) -> tuple[str, ...]:
    config = read_json(path)
    if prompted and config.get("include_prompt", True) is not True:
        raise ValueError(f"{path}: include_prompt must be true, since {SENTENCE_CONFIG} has a default prompt")
    if "pooling_mode" in config:  # what version 5.4 of sentence-transformers writes
        named = config["pooling_mode"]
        modes = named if isinstance(named, list) else [named]
    else:
        names = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean"}
        told = [
            key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on
        ]
        modes = [names.get(mode, mode) for mode in told]
    unknown = [mode for mode in modes if not isinstance(mode, str) or mode not in POOLINGS]
    if unknown or not modes:
        wanted = ", ".join(POOLINGS)
        raise ValueError(f"{path}: pooling_mode must be of {wanted}; got {', '.join(map(str, modes)) or 'none'}")
    return tuple(mode for mode in POOLINGS if mode in modes)


def _dense(folder: Path) -> tuple[Step, int]:
    path = folder / "config.json"
    config = read_json(path)
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ValueError(f"{path}: activation_function must be of {', '.join(ACTIVATIONS)}, got {activation!r}")
    tensors = Tensors(weights_path(folder))
    bias = tensors["linear.bias"] if config.get("bias", True) else None
    return affine(tensors["linear.weight"], bias, ACTIVATIONS[activation]), len(tensors["linear.weight"])


def affine(weight: Array, bias: Array | None, activation: Step) -> Step:
    """activation(weight @ x + bias), of a vector."""
    packed = kernels.pack_matrix(np.ascontiguousarray(weight))

    def step(x: Array) -> Array:
        return activation(kernels.gated_matmul(x[None], packed, shift=bias)[0])

    return step


def _prompt(folder: Path) -> str:
    path = folder / SENTENCE_CONFIG
    config = read_json(path) if path.exists() else {}
    name = config.get("default_prompt_name")
    if name is None:
        return ""
    prompts = config.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise ValueError(f"{path}: default_prompt_name is {name!r}, and prompts has no text of that name")
    return prompt


def _limits(folder: Path) -> dict[str, Any]:
    paths = [folder / f"sentence_{name}_config.json" for name in _LIMITED]
    path = next((path for path in paths if path.exists()), None)
    config = read_json(path) if path else {}
    most = config.get("max_seq_length")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"{path}: max_seq_length must be a whole number of at least 1, got {most!r}")
    return {"max_tokens": most or _tokenizer_limit(folder), "lower": bool(config.get("do_lower_case", False))}


def _tokenizer_limit(folder: Path) -> int | None:
    path = folder / "tokenizer_config.json"
    most = read_json(path).get("model_max_length") if path.exists() else None
    if isinstance(most, bool) or not isinstance(most, int | float | None):
        raise ValueError(f"{path}: model_max_length must be a number, got {most!r}")
    return int(most) if most is not None and 1 <= most < _UNLIMITED else None
