"""Whisper as CTranslate2 stores it: one file, `model.bin`, of all tensors."""

import hashlib
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.zoo.folder import pointer_hint
from models.zoo.whisper_shape import WhisperShape

Array = NDArray[np.float32]
FILE = "model.bin"

_TYPES = ("<f4", "i1", "<i2", "<i4", "<f2")
_HEAD_SIZE = 64
"""Of every Whisper, where the number of heads is not stored."""


class CTranslate2Tensors(Mapping[str, Array]):
    """The tensors of a `model.bin`, float32, read when they are asked for, by their own names.

    Raises `FileNotFoundError`, or `ValueError` for a file that is none of a Whisper's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, tuple[tuple[int, ...], int, int, int]] = {}
        if hint := pointer_hint(path):
            raise ValueError(f"{path} is no CTranslate2 model{hint}")
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise ValueError(f"{path} is no CTranslate2 model (it is empty)") from None
        try:
            self._read_entries()
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no CTranslate2 model ({error})") from None

    def _read_entries(self) -> None:
        at = 4

        def number(form: str) -> int:
            nonlocal at
            (value,) = struct.unpack_from(form, self._map, at)
            at += struct.calcsize(form)
            return int(value)

        def text() -> str:
            nonlocal at
            length = number("<H")
            at += length
            return self._map[at - length : at - 1].decode()

        kind = text()
        if kind != "WhisperSpec":
            raise ValueError(f"{self._path} is no Whisper, but {kind[:40]!r}")
        number("<I")
        for _ in range(number("<I")):
            name = text()
            shape = tuple(number("<I") for _ in range(number("<B")))
            datatype, size = number("<B"), number("<I")
            self._entries[name] = (shape, datatype, at, size)
            at += size
        for _ in range(number("<I")):
            alias, name = text(), text()
            if name in self._entries:
                self._entries[alias] = self._entries[name]

    def __getitem__(self, name: str) -> Array:
        if name not in self._entries:
            raise ValueError(f"{self._path} has no tensor {name!r}")
        shape, datatype, start, size = self._entries[name]
        if datatype >= len(_TYPES) or _TYPES[datatype] not in ("<f4", "<f2"):
            raise ValueError(f"{self._path}: tensor {name!r} must be float32 or float16; convert it with one of these")
        kind = np.dtype(_TYPES[datatype])
        stored = np.frombuffer(self._map, kind, size // kind.itemsize, start)
        return stored.astype(np.float32, copy=False).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._map).hexdigest()

    def shape(self) -> WhisperShape:
        """The sizes, as the tensors have them."""

        def size(name: str, axes: int = 2) -> tuple[int, ...]:
            if name not in self._entries:
                raise ValueError(f"{self._path} has no tensor {name!r}")
            found = self._entries[name][0]
            if len(found) != axes:
                raise ValueError(f"{self._path}: tensor {name!r} must have {axes} axes, got {list(found)}")
            return found

        def layers(part: str) -> int:
            found = {name.split("/")[1] for name in self._entries if name.startswith(f"{part}/layer_")}
            return len(found - {"layer_norm"})

        hidden, mels, _ = size("encoder/conv1/weight", 3)
        vocabulary, _ = size("decoder/embeddings/weight")
        encoder_heads, decoder_heads = (self._heads(f"{part}/num_heads", hidden) for part in ("encoder", "decoder"))
        return WhisperShape(
            mels=mels,
            positions=size("encoder/position_encodings/encodings")[0],
            hidden=hidden,
            vocabulary=vocabulary,
            context=size("decoder/position_encodings/encodings")[0],
            encoder_layers=layers("encoder"),
            encoder_heads=encoder_heads,
            encoder_feed_forward=size("encoder/layer_0/ffn/linear_0/weight")[0],
            decoder_layers=layers("decoder"),
            decoder_heads=decoder_heads,
            decoder_feed_forward=size("decoder/layer_0/ffn/linear_0/weight")[0],
        )

    def _heads(self, name: str, hidden: int) -> int:
        """How many heads so many channels have, by a tensor of one whole number."""
        if name not in self._entries:
            return max(1, hidden // _HEAD_SIZE)
        _, datatype, start, size = self._entries[name]
        kind = np.dtype(_TYPES[datatype]) if datatype < len(_TYPES) else np.dtype("i1")
        values = [int(value) for value in np.frombuffer(self._map, kind, size // kind.itemsize, start)]
        if len(values) != 1 or values[0] < 1 or hidden % values[0]:
            raise ValueError(f"{self._path}: {name} must be a number that divides {hidden}, got {values[:4]}")
        return values[0]

    def renamed(self) -> Mapping[str, Array]:
        """The same tensors by Hugging Face's names; what was stacked is apart."""
        tensors: dict[str, Array] = {
            "encoder.embed_positions.weight": self["encoder/position_encodings/encodings"],
            "decoder.embed_positions.weight": self["decoder/position_encodings/encodings"],
            "decoder.embed_tokens.weight": self["decoder/embeddings/weight"],
        }

        def take(name: str, *parts: str, norm: bool = False) -> None:
            """One stored layer, as so many of the same size."""
            for ours, theirs in (("weight", "gamma" if norm else "weight"), ("bias", "beta" if norm else "bias")):
                for part, values in zip(parts, np.split(self[f"{name}/{theirs}"], len(parts)), strict=True):
                    tensors[f"{part}.{ours}"] = values

        for i in (1, 2):
            take(f"encoder/conv{i}", f"encoder.conv{i}")
        for part in ("encoder", "decoder"):
            take(f"{part}/layer_norm", f"{part}.layer_norm", norm=True)
        shape = self.shape()
        for part, count in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
            for i in range(count):
                theirs, ours = f"{part}/layer_{i}", f"{part}.layers.{i}"
                attending = f"{ours}.self_attn"
                take(f"{theirs}/self_attention/layer_norm", f"{attending}_layer_norm", norm=True)
                take(f"{theirs}/self_attention/linear_0", *(f"{attending}.{name}_proj" for name in "qkv"))
                take(f"{theirs}/self_attention/linear_1", f"{attending}.out_proj")
                take(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", norm=True)
                take(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
                take(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
                if part == "decoder":
                    attending = f"{ours}.encoder_attn"
                    take(f"{theirs}/attention/layer_norm", f"{attending}_layer_norm", norm=True)
                    take(f"{theirs}/attention/linear_0", f"{attending}.q_proj")
                    take(f"{theirs}/attention/linear_1", f"{attending}.k_proj", f"{attending}.v_proj")
                    take(f"{theirs}/attention/linear_2", f"{attending}.out_proj")
        return tensors
