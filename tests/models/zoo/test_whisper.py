"""The encoder, the decoder and greedy decoding beside `transformers`, which is the oracle."""

import os

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models import kernels
from models.model import GateContext
from models.zoo.log_mel import log_mel, speech_frames
from models.zoo.speech_decoding import GreedyDecoder
from models.zoo.whisper import WORDS_GATE, Whisper
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_words import Calibrated, preview_of
from tests.models.zoo.random_whisper import CONTEXT, FEED_FORWARD, HIDDEN, MELS, POSITIONS, write_random_whisper

FRAMES = 2 * POSITIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def files(folder):
    return read_whisper(folder)


@pytest.fixture(scope="module")
def model(files):
    return Whisper(files.shape, files.tensors)


@pytest.fixture(scope="module")
def oracle(folder):
    transformers = pytest.importorskip("transformers")
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def spectrum():
    return np.random.default_rng(0).uniform(-1, 1, (FRAMES, MELS)).astype(np.float32)


def assert_close(ours, wanted):
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() <= 1e-3 * np.abs(wanted).max()
    assert np.linalg.norm(ours - wanted) <= 1e-4 * np.linalg.norm(wanted)


def encoded(model, spectrum):
    return model.encode(spectrum, FRAMES, GateContext(0.0))


def test_hidden_states_and_logits_are_those_of_the_oracle(model, oracle, spectrum):
    torch = pytest.importorskip("torch")
    tokens = [16, 17, 21, 25, 4, 7, 9]
    with torch.no_grad():
        wanted = oracle(
            input_features=torch.from_numpy(spectrum.T[None].copy()),
            decoder_input_ids=torch.tensor([tokens]),
            output_hidden_states=False,
        )
    heard = encoded(model, spectrum)
    assert_close(heard.states, wanted.encoder_last_hidden_state[0].numpy())
    decoding, context = model.listen(heard, GateContext(0.0)), GateContext(0.0)
    logits = [model.step(tokens[:3], decoding, context).logits]
    logits += [model.step([token], decoding, context).logits for token in tokens[3:]]
    assert_close(np.stack(logits), wanted.logits[0, 2:].numpy())


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("seed", [1, 3])
def test_greedy_tokens_are_those_of_the_oracle(model, files, oracle, times, seed):
    torch = pytest.importorskip("torch")
    spectrum = np.random.default_rng(seed).uniform(-1, 1, (FRAMES, MELS)).astype(np.float32)
    decoder = GreedyDecoder(model, files.tokens)
    heard = encoded(model, spectrum)
    said = decoder.say(heard, decoder.prompt("de", (), times), 30.0, times, GateContext(0.0), {})
    never = [token for token in range(files.shape.vocabulary) if token in files.tokens.suppressed]
    never += [] if times else range(files.tokens.first_timestamp, files.shape.vocabulary)
    with torch.no_grad():
        wanted = oracle.generate(
            torch.from_numpy(spectrum.T[None].copy()),
            language="de",
            task="transcribe",
            return_timestamps=times,
            suppress_tokens=never,
            max_new_tokens=10,
            do_sample=False,
            num_beams=1,
        )[0].tolist()
    wanted = [token for token in wanted if token not in (*decoder.prompt("de", (), times), files.tokens.end)]
    # With times the oracle goes on with what is behind the last one, as a window of its own.
    compared = min(len(said.tokens), 10) if times else 10
    assert len(said.tokens) > 2
    assert said.tokens[:compared] == wanted[:compared]


def calibration(model, spectrum):
    """Of one window and a text."""
    seen = {}
    context = GateContext(0.0)
    heard = model.encode(spectrum, FRAMES, context, watch=lambda gate, rows: seen.update({gate: rows}))
    decoding = model.listen(heard, context)
    model.score([16, 21, 4, 7], decoding, context, watch=lambda gate, rows: seen.update({gate: rows}))
    means = [seen[gate].mean(0) for gate in model.neuron_gates]
    return Calibrated(means, *preview_of(seen[WORDS_GATE], model.words, 32))


def test_neurons_that_are_skipped_contribute_their_means(files, model, spectrum):
    found = calibration(model, spectrum)
    gated = Whisper(files.shape, files.tensors, found)
    context = GateContext(0.0)
    heard = gated.encode(spectrum, FRAMES, context, dict.fromkeys(gated.neuron_gates, 1e9))
    tensors = dict(files.tensors)
    for i in range(files.shape.encoder_layers):
        name = f"encoder.layers.{i}"
        weight = tensors[f"{name}.fc2.weight"]
        tensors[f"{name}.fc2.bias"] = tensors[f"{name}.fc2.bias"] + weight @ found.means[i]
        tensors[f"{name}.fc2.weight"] = np.zeros_like(weight)
    wanted = encoded(Whisper(files.shape, tensors), spectrum)
    assert np.allclose(heard.states, wanted.states, atol=1e-4)
    assert context.layers["encoder1.neurons"].skipped == FEED_FORWARD


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3])
def test_a_gate_on_neurons_is_the_dense_layer_with_some_at_their_means(files, model, spectrum, threshold):
    found = calibration(model, spectrum)
    gated = Whisper(files.shape, files.tensors, found)
    context, name = GateContext(0.0), "encoder2.neurons"
    heard = gated.encode(spectrum, FRAMES, context, {name: threshold})
    work = context.layers[name]
    assert 0 < work.skipped < FEED_FORWARD
    skipped = np.setdiff1d(np.arange(FEED_FORWARD), work.last_active)
    tensors, layer = dict(files.tensors), "encoder.layers.1"
    weight = tensors[f"{layer}.fc2.weight"].copy()
    tensors[f"{layer}.fc2.bias"] = tensors[f"{layer}.fc2.bias"] + weight[:, skipped] @ found.means[1][skipped]
    weight[:, skipped] = 0
    tensors[f"{layer}.fc2.weight"] = weight
    assert np.allclose(heard.states, encoded(Whisper(files.shape, tensors), spectrum).states, atol=1e-3)
    assert context.macs_skipped > 0


def test_the_likeliest_words_are_compared_exactly(files, model, spectrum):
    gated = Whisper(files.shape, files.tensors, calibration(model, spectrum))
    context, possible = GateContext(0.0), np.zeros(files.shape.vocabulary, np.float32)
    possible[3] = -np.inf
    heard = gated.encode(spectrum, FRAMES, context)
    dense = gated.step([16, 21, 4, 7], gated.listen(heard, context), context, possible=possible)
    few = gated.step([16, 21, 4, 7], gated.listen(heard, context), context, {WORDS_GATE: 0.1}, possible)
    assert context.layers[WORDS_GATE].last_active is few.ids
    assert 0 < len(few.ids) < files.shape.vocabulary
    assert few.likeliest()[0] == dense.likeliest()[0] != 3
    assert np.allclose(few.logits, dense.logits[few.ids], atol=1e-4)


def test_a_step_past_the_context_is_refused(model, spectrum):
    decoding = model.listen(encoded(model, spectrum), GateContext(0.0))
    model.step([1] * CONTEXT, decoding, GateContext(0.0))
    with pytest.raises(ValueError, match=f"tokens: the decoder looks at {CONTEXT}"):
        model.step([1], decoding, GateContext(0.0))


def test_means_of_another_model_are_refused(files):
    means, preview = [np.zeros(FEED_FORWARD, np.float32)], np.zeros((HIDDEN, 2), np.float32)
    with pytest.raises(ValueError, match="means of 1 layers"):
        Whisper(files.shape, files.tensors, Calibrated(means, preview, preview))
    with pytest.raises(ValueError, match=r"preview must be \[64, n\] twice"):
        Whisper(files.shape, files.tensors, Calibrated(means * 4, preview[:9], preview[:9]))


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_smaller_numbers_are_near(files, model, spectrum, datatype):
    small = encoded(Whisper(files.shape, files.tensors, datatype=datatype), spectrum).states
    wanted = encoded(model, spectrum).states
    assert 0 < np.linalg.norm(small - wanted) < 0.05 * np.linalg.norm(wanted)


def test_speech_ends_where_it_is_loud_last():
    samples = np.zeros(16_000, np.float32)
    samples[2000:6400] = np.random.default_rng(0).standard_normal(4400) * 0.1
    assert 38 <= speech_frames(log_mel(samples, MELS, FRAMES)) <= 43


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one processor")
def test_threads_hear_the_same(model, spectrum):
    shared = model.encode(spectrum, FRAMES, GateContext(0.0, threads=kernels.Threads(2)))
    np.testing.assert_array_equal(shared.states, encoded(model, spectrum).states)
