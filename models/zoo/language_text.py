"""From text to tokens and back, and from a chat to text, as a language model's folder says."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from sys import getsizeof
from typing import Any

from models.model import InvalidInput
from models.zoo.folder import read_json
from models.zoo.remembered import Remembered
from models.zoo.tokenizer_file import read_tokenizer

log = logging.getLogger(__name__)

REMEMBERED_BYTES = 16 * 1024 * 1024
"""A text is tokenised when it is admitted, to know its work; what was found is kept until it runs, if there is room."""
_TOKEN_BYTES = 36
"""Of a number and its place in a tuple."""

LANGUAGE_COMMAND = "pip install 'sluice-serve[language]'"


class Vocabulary:
    """The tokeniser of a Hugging Face folder.

    Raises `FileNotFoundError`, `ModuleNotFoundError` without the package tokenizers, or `ValueError`."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: a language model needs its tokenizer.json")
        self._tokenizer = read_tokenizer(path)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        content = read_json(path)
        added = content.get("added_tokens") or []
        self._special = frozenset(token["id"] for token in added if token["special"])
        self._as_text: dict[int, bytes] = {
            token["id"]: token["content"].encode() for token in added if not token["special"]
        }
        self._decoder, self._letters = json.dumps(content.get("decoder")), _letters()
        settings = _optional_json(folder / "tokenizer_config.json")
        self._first = _content(settings.get("bos_token"))
        if (begins := settings.get("add_bos_token")) is not None:
            self._begin_texts(bool(begins))
        self.encode: Remembered[str, tuple[int, ...]] = Remembered(
            self._encode, lambda text, tokens: getsizeof(text) + _TOKEN_BYTES * len(tokens), REMEMBERED_BYTES
        )

    def _begin_texts(self, begins: bool) -> None:
        """What begins a sequence is put before a text, or is not, whatever tokenizer.json says, as transformers does
        where tokenizer_config.json has `add_bos_token`."""
        from tokenizers.processors import TemplateProcessing

        first = self.id(self._first) if begins else None
        special = [] if first is None else [(self._first, first)]
        self._tokenizer.post_processor = TemplateProcessing([*(name for name, _ in special), "$A"], None, special)

    def _encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text. What begins a sequence is put before it, unless the text has it already."""
        begun = bool(self._first) and text.startswith(self._first)
        return tuple(self._tokenizer.encode(text, add_special_tokens=not begun).ids)

    def id(self, token: str) -> int | None:
        """The id of a token by its name."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def decode(self, tokens: Sequence[int]) -> bytes:
        """Their UTF-8, without special tokens."""
        return b"".join(self._bytes(token) for token in tokens if token not in self._special)

    def _bytes(self, token: int) -> bytes:
        if token in self._as_text:
            return self._as_text[token]
        name: str | None = self._tokenizer.id_to_token(token)
        if name is None:
            return b""
        if "ByteLevel" in self._decoder:
            return bytes(self._letters[letter] for letter in name if letter in self._letters)
        if "ByteFallback" in self._decoder and len(name) == 6 and name.startswith("<0x"):
            return bytes([int(name[3:5], 16)])
        return name.replace("\u2581", " ").encode()


class ChatTemplate:
    """How a folder's model was trained to read a chat: a Jinja template, run where it can reach nothing. Without one,
    it is ChatML if the vocabulary has its tokens."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        """Raises `ValueError` where the files hold no template that is a text."""
        settings = _optional_json(folder / "tokenizer_config.json")
        file = folder / "chat_template.jinja"
        source = file.read_text("utf-8") if file.exists() else settings.get("chat_template")
        if isinstance(source, list):  # several by name
            source = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}.get(
                "default"
            )
        if source is not None and not isinstance(source, str):
            raise ValueError(f"{folder / 'tokenizer_config.json'}: chat_template must be a text, got {source!r}")
        self._is_chatml = vocabulary.id("<|im_start|>") is not None and vocabulary.id("<|im_end|>") is not None
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        self._tokens = {name: _content(settings.get(name)) for name in names}
        self._render: Callable[..., str] | None = None
        self._wrong = ""
        if source is not None:
            try:
                self._render = _compiled(source)
            except Exception as error:  # by then the template is Python, whose compiler has its own
                self._wrong = f"the model's chat template does not compile: {error}"
                log.warning("%s: %s; it answers no chats", folder, self._wrong)

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that asks for an answer to the messages. Raises `InvalidInput` where the template refuses them."""
        if not messages:
            raise InvalidInput("messages", "must hold at least one message")
        if self._wrong:
            raise InvalidInput("messages", self._wrong)
        if self._render is None:
            return self._chatml(messages)
        content = [dict(message) for message in messages]
        try:
            return str(
                self._render(messages=content, tools=None, documents=None, add_generation_prompt=True, **self._tokens)
            )
        except Exception as error:  # whatever its expressions raise
            raise InvalidInput("messages", f"the model's chat template refuses them: {error}") from None

    def _chatml(self, messages: Sequence[Mapping[str, str]]) -> str:
        if not self._is_chatml:
            raise InvalidInput("messages", "the model has no chat template; give it a prompt")
        turns = [f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages]
        return "".join(turns) + "<|im_start|>assistant\n"


def _compiled(source: str) -> Callable[..., str]:
    """A template, with what transformers gives to one. Raises what jinja2 raises where it does not compile."""
    from jinja2.ext import Extension
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):  # type: ignore[misc]
        """Marks what an assistant said, which tells training what to learn: here it is as if it were not there."""

        tags = frozenset({"generation"})

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            body: list[Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    render: Callable[..., str] = environment.from_string(source).render
    return render


def _refuse(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _content(token: Any) -> str:
    """A special token's text, which tokenizer_config.json has as it is or within an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (Radford et al. 2019): itself where it can be
    seen, else the next one past the first 256."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(others)}
