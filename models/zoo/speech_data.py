"""Speech for calibrating and measuring: the recordings of Asterisk's voice menus, which Debian has with their texts,
or a folder of the user's own."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.zoo.audio import UnreadableAudio, read_audio
from models.zoo.log_mel import RATE

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
DEBIAN_COMMAND = "apt-get install asterisk-core-sounds-en asterisk-core-sounds-en-wav"

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
LONGEST_SECONDS = 600.0


class MissingSpeech(FileNotFoundError):
    """The recordings are not on this computer; the message says how to get them."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Audio float32 [n] at 16 kHz, and what is said in it; None where nobody wrote that down."""

    name: str
    audio: NDArray[np.float32]
    text: str | None

    @property
    def seconds(self) -> float:
        return len(self.audio) / RATE


def asterisk(folder: Path = SOUNDS, texts: Path = TEXTS, names: Sequence[str] | None = None) -> list[Clip]:
    """The recordings that have a text, or those of these names, in their order. A text with brackets describes a noise.
    Raises `MissingSpeech`."""
    if not texts.exists() or not folder.exists():
        raise MissingSpeech(f"the recordings of Asterisk are not installed: {DEBIAN_COMMAND}")
    lines = gzip.decompress(texts.read_bytes()).decode().splitlines()
    said = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(";"))
    found = [(folder / f"{name}.wav", name, text) for name, text in sorted(said.items()) if not set(text) & set("[]")]
    clips = [
        Clip(name, read_audio(path, RATE, LONGEST_SECONDS), text)
        for path, name, text in found
        if path.exists() and (names is None or name in names)
    ]
    if not clips:
        raise MissingSpeech(f"{folder} has no recordings in wav: {DEBIAN_COMMAND}")
    return clips


def of_folder(folder: Path) -> list[Clip]:
    """A user's own recordings, each with the text of the file of its name and `.txt` beside it, if there is one. Raises
    `OSError`, or `ValueError` for a folder without any or a file that cannot be read."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of recordings ({', '.join(SUFFIXES)})")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} has no recordings ({', '.join(SUFFIXES)})")
    return list(_read(paths))


def _read(paths: Sequence[Path]) -> Iterator[Clip]:
    for path in paths:
        text = path.with_suffix(".txt")
        try:
            audio = read_audio(path, RATE, LONGEST_SECONDS)
        except UnreadableAudio as error:
            raise ValueError(f"{path}: {error}") from None
        yield Clip(path.stem, audio, text.read_text("utf-8").strip() if text.exists() else None)


def split(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip], list[Clip]]:
    """Clips to find thresholds on, to measure the profile on, and never to be looked at before the end: every third
    each, so that all have all kinds. Raises `ValueError` for too few."""
    if len(clips) < 15:
        raise ValueError(f"there must be at least 15 recordings, got {len(clips)}")
    return list(clips[::3]), list(clips[1::3]), list(clips[2::3])
