"""The files of a Whisper: a Hugging Face folder (safetensors), or one that was made for CTranslate2 (`model.bin`).

Both give tensors by Hugging Face's names, the model's shape, and the tokens that are no text."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.zoo import ctranslate2
from models.zoo.ctranslate2 import CTranslate2Tensors
from models.zoo.folder import INDEX, WEIGHTS, Tensors, read_json, weights_digest, weights_files, weights_path
from models.zoo.tokenizer_file import read_tokenizer
from models.zoo.whisper_languages import CODES
from models.zoo.whisper_shape import WhisperShape, read_shape

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = NDArray[np.float32]
TOKENIZER = "tokenizer.json"
GENERATION = "generation_config.json"

_MULTILINGUAL_VOCABULARY = 51_865
"""The vocabulary of a model that knows several languages has at least so many tokens, where nothing else tells."""
TASKS = ("transcribe", "translate")
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """The ids of tokens with a meaning of their own. Those above `end` are no text; from `first_timestamp` on they are
    times, each 20 ms after the one before. `languages` is empty for a model of English alone."""

    start: int
    end: int
    no_timestamps: int
    previous: int
    no_speech: int | None
    task: int
    """What is to be done: to transcribe, or to translate into English where the folder says so."""
    languages: Mapping[str, int]
    suppressed: tuple[int, ...]
    """Never said."""
    suppressed_first: tuple[int, ...]
    """Not said first."""
    language: str | None = None
    """What the folder's model hears where nobody names a language; None: whatever is likeliest."""
    task_name: str = TASKS[0]

    @property
    def first_timestamp(self) -> int:
        return self.no_timestamps + 1


@dataclass(frozen=True, slots=True)
class WhisperFiles:
    """What a folder holds; `digest` is the SHA-256 of its weights."""

    shape: WhisperShape
    tensors: Mapping[str, Array]
    digest: str
    tokens: SpeechTokens
    tokenizer: "Tokenizer"


def is_whisper(folder: Path) -> bool:
    """Whether a folder holds a Whisper."""
    config = folder / "config.json"
    try:
        made_for_whisper = config.exists() and read_json(config).get("model_type") == "whisper"
    except ValueError:
        return False
    return made_for_whisper or ((folder / ctranslate2.FILE).exists() and (folder / TOKENIZER).exists())


def read_whisper(folder: Path) -> WhisperFiles:
    """Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, or `ValueError` for files of
    another architecture, naming the file."""
    if not (folder / TOKENIZER).exists():
        raise FileNotFoundError(f"{folder / TOKENIZER} is missing")
    tokenizer = read_tokenizer(folder / TOKENIZER)
    if _is_converted(folder):
        stored = CTranslate2Tensors(folder / ctranslate2.FILE)
        shape, digest, tensors = stored.shape(), stored.digest, stored.renamed()
        settings = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
        suppressed, first = settings.get("suppress_ids"), settings.get("suppress_ids_begin")
        multilingual, habits = None, None
    else:
        config = read_json(folder / "config.json")
        shape = read_shape(config)
        whole = Tensors(weights_path(folder), prefix="model.")
        digest, tensors = whole.digest, whole
        place = folder / GENERATION
        settings = read_json(place) if place.exists() else config
        suppressed, first = settings.get("suppress_tokens"), settings.get("begin_suppress_tokens")
        multilingual, habits = settings.get("is_multilingual"), (settings if place.exists() else {}, config)
    if multilingual is None:
        multilingual = shape.vocabulary >= _MULTILINGUAL_VOCABULARY
    tokens = _speech_tokens(folder, tokenizer, multilingual, suppressed, first)
    if tokens.languages and habits is not None:
        tokens = _with_habits(tokens, tokenizer, folder, *habits)
    return WhisperFiles(shape, tensors, digest, tokens, tokenizer)


def measured_weights(folder: Path) -> tuple[tuple[Path, ...], Callable[[], str]]:
    """The files of a folder's weights, and how to find `WhisperFiles.digest` without reading more."""
    if _is_converted(folder):
        path = folder / ctranslate2.FILE
        return (path,), lambda: CTranslate2Tensors(path).digest
    weights = weights_path(folder)
    return tuple(weights_files(weights)), partial(weights_digest, weights)


def _is_converted(folder: Path) -> bool:
    """Whether its weights are those of CTranslate2."""
    there = (folder / ctranslate2.FILE).exists()
    return there and not any((folder / name).exists() for name in (WEIGHTS, INDEX))


def _speech_tokens(
    folder: Path, tokenizer: "Tokenizer", multilingual: bool, suppressed: Any, suppressed_first: Any
) -> SpeechTokens:
    def find(*names: str) -> int | None:
        ids = (tokenizer.token_to_id(f"<|{name}|>") for name in names)
        return next((token for token in ids if token is not None), None)

    def need(name: str) -> int:
        token = find(name)
        if token is None:
            raise ValueError(f"{folder / TOKENIZER} has no token <|{name}|>: it is no Whisper's")
        return int(token)

    found = {name: id for name, id in tokenizer.get_vocab().items() if _LANGUAGE.fullmatch(name)}
    languages = {name[2:-2]: id for name, id in sorted(found.items(), key=lambda item: item[1])}
    end = need("endoftext")
    blank = tokenizer.token_to_id("Ġ")
    return SpeechTokens(
        start=need("startoftranscript"),
        end=end,
        no_timestamps=need("notimestamps"),
        previous=need("startofprev"),
        no_speech=find("nospeech", "nocaptions"),
        task=need(TASKS[0]),
        languages=languages if multilingual else {},
        suppressed=_ids(suppressed, ()),
        suppressed_first=_ids(suppressed_first, tuple(id for id in (blank, end) if id is not None)),
    )


def _with_habits(
    tokens: SpeechTokens,
    tokenizer: "Tokenizer",
    folder: Path,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
) -> SpeechTokens:
    """The same with the language and the task that a folder's model was made for, as transformers reads them:
    `language` and `task`, or where there is neither, the tokens that are to follow the first one."""
    language, task = settings.get("language"), settings.get("task")
    where = folder / GENERATION
    if language is None and task is None:
        forced = settings.get("forced_decoder_ids")
        if forced is None:
            forced, where = config.get("forced_decoder_ids"), folder / "config.json"
        names = _forced(forced, tokenizer, where)
        language = next((name for name in names if name in tokens.languages), None)
        task = next((name for name in names if name in TASKS), None)
    if language is not None:
        spoken = str(language).lower().removeprefix("<|").removesuffix("|>")
        language = CODES.get(spoken, spoken)
        if language not in tokens.languages:
            raise ValueError(f"{where}: language must be one that the model knows, got {spoken!r}")
    token = tokens.task if task is None else tokenizer.token_to_id(f"<|{task}|>") if task in TASKS else None
    if token is None:
        raise ValueError(
            f"{where}: task must be one of {', '.join(TASKS)}, of which the tokenizer has a token, got {task!r}"
        )
    return replace(tokens, language=language, task=token, task_name=task or tokens.task_name)


def _forced(forced: Any, tokenizer: "Tokenizer", where: Path) -> list[str]:
    """The names of tokens that are to follow the first one: pairs of a place and an id, None for any."""
    if forced is None:
        return []
    try:
        ids = [id for _, id in forced if id is not None]
        return [(tokenizer.id_to_token(id) or "")[2:-2] for id in ids]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: forced_decoder_ids must be pairs of a place and a token, got {forced!r}") from None


def _ids(given: Any, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of ids of a settings file; negative ones mean nothing."""
    return tuple(id for id in given if isinstance(id, int) and id >= 0) if isinstance(given, list) else default
