import gzip

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from models.zoo.speech_data import MissingSpeech, asterisk, of_folder, split


def write(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(int(8000 * seconds)), 8000)


def test_recordings_with_a_text_and_no_brackets_in_it(tmp_path):
    for name in ("hello", "digits/1", "beep", "other"):
        write(tmp_path / f"{name}.wav")
    texts = tmp_path / "texts.gz"
    lines = "; English\n\nhello: Hello: you.\nbeep: [a beep]\ndigits/1: one\nmissing: gone\n"
    texts.write_bytes(gzip.compress(lines.encode()))
    clips = asterisk(tmp_path, texts)
    assert [(clip.name, clip.text) for clip in clips] == [("digits/1", "one"), ("hello", "Hello: you.")]
    assert clips[0].seconds == pytest.approx(0.1, abs=0.001)
    assert [clip.name for clip in asterisk(tmp_path, texts, names=("hello",))] == ["hello"]


def test_what_is_not_installed_comes_with_the_command(tmp_path):
    with pytest.raises(MissingSpeech, match="apt-get install asterisk-core-sounds-en"):
        asterisk(tmp_path / "none", tmp_path / "none.gz")


def test_a_folder_of_ones_own_with_texts_beside(tmp_path):
    write(tmp_path / "b.wav")
    write(tmp_path / "deep" / "a.flac")
    (tmp_path / "b.txt").write_text("Two words.\n")
    assert [(clip.name, clip.text) for clip in of_folder(tmp_path)] == [("b", "Two words."), ("a", None)]


def test_a_folder_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(ValueError, match="has no recordings"):
        of_folder(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"a\.wav: cannot be read"):
        of_folder(tmp_path)
    with pytest.raises(ValueError, match="must be a folder"):
        of_folder(tmp_path / "a.wav")


def test_parts_have_nothing_in_common():
    first, second, third = split(list(range(20)))
    assert sorted([*first, *second, *third]) == list(range(20))
    assert (len(first), len(second), len(third)) == (7, 7, 6)
    with pytest.raises(ValueError, match="at least 15"):
        split(list(range(14)))
