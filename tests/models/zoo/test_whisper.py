"""The encoder, the decoder and greedy decoding beside `transformers`, which is the oracle."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `speech` is not installed")

from models.model import GateContext
from models.zoo.log_mel import log_mel, speech_frames
from models.zoo.speech_decoding import GreedyDecoder
from models.zoo.whisper import FRAMES_GATE, Whisper, kept_frames
from models.zoo.whisper_files import read_whisper
from tests.models.zoo.random_whisper import CONTEXT, FEED_FORWARD, MELS, POSITIONS, write_random_whisper

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
    states = encoded(model, spectrum)
    assert_close(states, wanted.encoder_last_hidden_state[0].numpy())
    decoding, context = model.listen(states, GateContext(0.0)), GateContext(0.0)
    logits = [model.step(tokens[:3], decoding, context)]
    logits += [model.step([token], decoding, context) for token in tokens[3:]]
    assert_close(np.stack(logits), wanted.logits[0, 2:].numpy())


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("seed", [1, 3])
def test_greedy_tokens_are_those_of_the_oracle(model, files, oracle, times, seed):
    torch = pytest.importorskip("torch")
    spectrum = np.random.default_rng(seed).uniform(-1, 1, (FRAMES, MELS)).astype(np.float32)
    decoder = GreedyDecoder(model, files.tokens)
    states = encoded(model, spectrum)
    said = decoder.say(states, decoder.prompt("de", (), times), 30.0, times, GateContext(0.0), {})
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


def test_a_part_of_the_window_is_what_the_whole_begins_with(files, spectrum):
    """The convolutions see the frames behind the part, and not its end."""
    stem_alone = Whisper(replace(files.shape, encoder_layers=0, decoder_layers=0), files.tensors)
    context = GateContext(0.0)
    part = stem_alone.encode(spectrum, 40, context, {FRAMES_GATE: 0.8})
    assert np.allclose(part, encoded(stem_alone, spectrum)[:30], atol=1e-5)
    assert context.layers[FRAMES_GATE].skipped == 40
    assert 0.35 < context.macs_skipped_ratio < 0.7


def test_frames_are_kept_by_how_far_they_are_from_the_speech():
    assert kept_frames(300, 3000, 0.0) == 3000
    assert kept_frames(300, 3000, 0.9) == 600
    assert kept_frames(300, 3000, 1.0) == 300
    assert kept_frames(2900, 3000, 0.5) == 3000


def means_of(files, model, spectrum):
    """The means of all neurons over one window and a text."""
    seen = {}
    context = GateContext(0.0)
    states = model.encode(spectrum, FRAMES, context, watch=lambda gate, rows: seen.update({gate: rows.mean(0)}))
    model.score(
        [16, 21, 4, 7],
        model.listen(states, context),
        context,
        watch=lambda gate, rows: seen.update({gate: rows.mean(0)}),
    )
    return [seen[gate] for gate in model.neuron_gates]


def test_neurons_that_are_skipped_contribute_their_means(files, model, spectrum):
    means = means_of(files, model, spectrum)
    gated = Whisper(files.shape, files.tensors, means)
    context = GateContext(0.0)
    all_skipped = dict.fromkeys(gated.neuron_gates, 1e9)
    states = gated.encode(spectrum, FRAMES, context, all_skipped)
    tensors = dict(files.tensors)
    for i in range(files.shape.encoder_layers):
        name = f"encoder.layers.{i}"
        weight = tensors[f"{name}.fc2.weight"]
        tensors[f"{name}.fc2.bias"] = tensors[f"{name}.fc2.bias"] + weight @ means[i]
        tensors[f"{name}.fc2.weight"] = np.zeros_like(weight)
    wanted = encoded(Whisper(files.shape, tensors), spectrum)
    assert np.allclose(states, wanted, atol=1e-4)
    assert context.layers["encoder1.neurons"].skipped == FEED_FORWARD


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3])
def test_a_gate_on_neurons_is_the_dense_layer_with_some_at_their_means(files, model, spectrum, threshold):
    means = means_of(files, model, spectrum)
    gated = Whisper(files.shape, files.tensors, means)
    context, name = GateContext(0.0), "encoder2.neurons"
    states = gated.encode(spectrum, FRAMES, context, {name: threshold})
    work = context.layers[name]
    assert 0 < work.skipped < FEED_FORWARD
    skipped = np.setdiff1d(np.arange(FEED_FORWARD), work.last_active)
    tensors, layer = dict(files.tensors), "encoder.layers.1"
    weight = tensors[f"{layer}.fc2.weight"]
    tensors[f"{layer}.fc2.bias"] = tensors[f"{layer}.fc2.bias"] + weight[:, skipped] @ means[1][skipped]
    weight = weight.copy()
    weight[:, skipped] = 0
    tensors[f"{layer}.fc2.weight"] = weight
    assert np.allclose(states, encoded(Whisper(files.shape, tensors), spectrum), atol=1e-3)
    assert context.macs_skipped > 0


def test_a_step_past_the_context_is_refused(model, spectrum):
    decoding = model.listen(encoded(model, spectrum), GateContext(0.0))
    model.step([1] * CONTEXT, decoding, GateContext(0.0))
    with pytest.raises(ValueError, match=f"tokens: the decoder looks at {CONTEXT}"):
        model.step([1], decoding, GateContext(0.0))


def test_means_of_another_model_are_refused(files):
    with pytest.raises(ValueError, match="means of 1 layers"):
        Whisper(files.shape, files.tensors, [np.zeros(FEED_FORWARD, np.float32)])


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_smaller_numbers_are_near(files, model, spectrum, datatype):
    small = encoded(Whisper(files.shape, files.tensors, datatype=datatype), spectrum)
    wanted = encoded(model, spectrum)
    assert 0 < np.linalg.norm(small - wanted) < 0.05 * np.linalg.norm(wanted)


def test_speech_ends_where_it_is_loud_last():
    samples = np.zeros(16_000, np.float32)
    samples[2000:6400] = np.random.default_rng(0).standard_normal(4400) * 0.1
    assert 38 <= speech_frames(log_mel(samples, MELS, FRAMES)) <= 43
