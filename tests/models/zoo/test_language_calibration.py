"""The gates of a language model: calibrated, in a pass over a text, and in steps."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")
pytest.importorskip("jinja2", reason="the extra `language` is not installed")

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext
from models.zoo import text_data
from models.zoo.language_calibration import FAR_FROM, FAR_LEAST, calibrate, far_losses, split_text
from models.zoo.language_calibration_file import load_calibration, save_calibration
from models.zoo.language_gates import (
    PromptGates,
    has_channels,
    log_probabilities,
    losses,
    masking,
    pooled,
    step_log_probabilities,
    windows,
)
from models.zoo.language_model import LanguageModel
from models.zoo.language_quality import measure_language, measure_long_texts, perplexity_ratio
from models.zoo.llama_gates import GATES, SINKS
from tests.models.zoo.random_llama import write_random_llama

TEXT = " ".join(text_data.sample())[:600]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A random model with its own profile, and how calibration went."""
    folder, shares = write_random_llama(tmp_path_factory.mktemp("tiny"), max_position_embeddings=512), []
    dense = LanguageModel("tiny", folder)
    profile, calibration = calibrate(dense, TEXT, TEXT[::-1], shares.append, points=4)
    return LanguageModel("tiny", folder, profile, calibration), shares


def test_the_dial_goes_from_dense_to_less(calibrated):
    model, shares = calibrated
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    points = model.profile.points
    assert [point.level for point in points] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert set(points[0].thresholds) == {*model.network.gates, *model.network.prompt_gates}
    assert not any(points[0].thresholds.values())
    ratios = [point.macs_ratio for point in points]
    assert ratios[0] == 1
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < 0.95
    assert all(point.agreement_lower <= point.agreement <= 1 for point in points)


def test_level_0_is_the_dense_model(calibrated):
    model, _ = calibrated
    dense, tokens = LanguageModel("tiny", model.folder), model.encode(TEXT)[:24]
    found = []
    for one in (model, dense):
        sequence, context = one.begin(tokens), GateContext(0.0)
        one.step([sequence], [context])
        sequence.append(5)
        found.append(one.step([sequence], [context])[0])
        assert context.macs_skipped == 0
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_a_pass_with_gates_is_the_steps_with_them(calibrated):
    model, _ = calibrated
    tokens = model.encode(TEXT)[:24]
    level = 1.0
    known = model.profile.at(level).thresholds
    mask = masking(
        model.network, model.calibration, np.array([known[gate] for gate in model.network.gates], np.float32)
    )
    wanted = log_probabilities(model.network, tokens, mask)
    sequence, context, found = model.begin(tokens[:1]), GateContext(level), []
    for token in tokens[1:]:
        found.append(model.step([sequence], [context])[0])
        sequence.append(token)
    logits = np.stack(found)
    normal = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert np.abs(normal - wanted).mean() < 5e-3  # what is read coarsely may be rounded to bf16
    np.testing.assert_allclose(normal, wanted, rtol=1e-2, atol=2e-2)
    active = {gate: work.channels - work.skipped for gate, work in context.layers.items()}
    sinks = SINKS * np.array(model.network.shape.gates()[0])
    told = dict(zip(model.network.gates, (mask.active + sinks).tolist(), strict=True))
    assert {gate: active[gate] for gate in told if has_channels(gate)} == {
        gate: count for gate, count in told.items() if has_channels(gate)
    }
    assert all(
        active[gate] == len(tokens[1:]) * 2 for gate in told if not has_channels(gate)
    )  # this text has no far positions
    assert 0 < context.macs_skipped < context.macs


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """One that takes long texts, under gates on heads alone, and a long text."""
    folder = write_random_llama(tmp_path_factory.mktemp("long"), max_position_embeddings=1024)
    dense = LanguageModel("long", folder)
    points = [
        OperatingPoint(level, thresholds, 0.0, 1.0, None, None, 1.0, 1.0)
        for level, thresholds in ((0.0, {}), (1.0, {"layer1.heads": 0.8, "layer2.heads": 0.8}))
    ]
    profile = Profile("long", 1, 0.95, dense.digest, tuple(points))
    return LanguageModel("long", folder, profile), dense.encode(TEXT)[:20] * 35


def test_gates_on_heads_leave_out_far_positions_of_long_texts(long_model):
    model, tokens = long_model
    shape, sequences, contexts = model.network.shape, [], []
    for length in (300, 640):
        sequences.append(model.begin(tokens[:length]))
        contexts.append(GateContext(1.0))
        while model.step(sequences[-1:], [GateContext(1.0)])[0] is None:
            pass
    for _ in range(16):
        for sequence in sequences:
            sequence.append(7)
        model.step(sequences, contexts)
    gates = [gate for gate in model.network.gates if gate.endswith("heads")]
    skipped = [sum(context.layers[gate].skipped for gate in gates) for context in contexts]
    assert skipped[0] == contexts[0].macs_skipped == 0
    assert skipped[1] > 0
    # With 640 to 767 positions 3 blocks of 128 lie between the first one and the last ones.
    worth = shape.far_macs(648, 128)
    assert worth == 2 * 384 * shape.heads // shape.key_heads * shape.head_size
    assert contexts[1].macs_skipped == skipped[1] * worth
    assert shape.macs(640, 656, False) > contexts[1].macs_skipped


def test_the_loss_of_gates_on_heads_is_measured_on_long_texts(long_model):
    model, tokens = long_model
    found, thresholds = far_losses(model, [tokens[: FAR_FROM + FAR_LEAST]])
    assert thresholds[0] == found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert 0 < found[-1] < 1
    short = far_losses(model, [tokens[: FAR_FROM + FAR_LEAST - 1]])
    assert [part.tolist() for part in short] == [[0.0], [0.0]]


def test_steps_without_gates_are_the_pass(long_model):
    model, tokens = long_model
    network, short = model.network, tokens[:40]
    stepped = step_log_probabilities(network, short, np.zeros(len(network.gates), np.float32), 12)
    np.testing.assert_allclose(stepped, log_probabilities(network, short)[11:], rtol=1e-4, atol=1e-4)


def test_the_steps_of_the_sinks_are_dense(calibrated):
    model, _ = calibrated
    sequence, skipped = model.begin(model.encode(TEXT)[:1]), []
    for token in model.encode(TEXT)[1 : SINKS + 2]:
        context = GateContext(1.0)
        model.step([sequence], [context])
        sequence.append(token)
        skipped.append(context.macs_skipped > 0)
    assert skipped == [False] * SINKS + [True]


def test_a_prompt_has_fewer_neurons_at_a_level(calibrated):
    model, _ = calibrated
    tokens = model.encode(TEXT)[:24]
    dense, gated = model.begin(tokens), model.begin(tokens)
    contexts = GateContext(0.0), GateContext(1.0)
    wanted, logits = (
        model.step([sequence], [context])[0] for sequence, context in zip((dense, gated), contexts, strict=True)
    )
    exact = log_probabilities(model.network, [*tokens, 5])[-1]
    np.testing.assert_allclose(wanted - np.log(np.exp(wanted).sum()), exact, rtol=1e-4, atol=1e-4)
    assert contexts[0].macs_skipped == 0 < contexts[1].macs_skipped < contexts[1].macs
    assert contexts[1].layers["layer1.attention"].skipped == 0
    skipped = sum(contexts[1].layers[f"layer{i}.neurons"].skipped for i in (1, 2, 3))
    assert contexts[1].macs_skipped == 2 * skipped * model.network.shape.hidden
    assert 0 < np.abs(logits - wanted).max() < 3


def test_only_the_active_neurons_of_a_prompt_take_part(calibrated):
    model, _ = calibrated
    network, tokens = model.network, model.encode(TEXT)[:24]
    gates = PromptGates(network.neuron_norms, model.prompt_thresholds(1.0))
    states = network.advance(tokens, network.start(), select=gates)
    assert gates.skipped == sum(112 - active for active in gates.active.values()) > 0

    def watch(gate, values):
        if not network.gates[gate].endswith("neurons"):
            return values
        layer = gate // len(GATES)
        active = pooled(values) * network.neuron_norms[layer] > model.prompt_thresholds(1.0)[layer]
        return np.where(active, values, 0).astype(np.float32)

    skipping = LanguageModel("tiny", model.folder).network  # without coarse weights, as a prompt is computed
    np.testing.assert_allclose(states, skipping.advance(tokens, skipping.start(), watch), rtol=1e-3, atol=1e-4)


def test_sequences_at_their_own_levels_in_one_step(calibrated):
    model, _ = calibrated
    levels, texts = (0.0, 0.5, 1.0), ("whale", "captain", "ocean")

    def run(sequences, levels):
        contexts = [GateContext(level) for level in levels]
        for _ in range(3):
            for sequence, logits in zip(sequences, model.step(sequences, contexts), strict=True):
                sequence.append(int(logits.argmax()))
        return [sequence.tokens for sequence in sequences], [context.macs_skipped for context in contexts]

    together = run([model.begin(model.encode(text)) for text in texts], levels)
    alone = [run([model.begin(model.encode(text))], [level]) for text, level in zip(texts, levels, strict=True)]
    assert together == ([tokens for (tokens,), _ in alone], [skipped for _, (skipped,) in alone])
    assert together[1][0] == 0 < together[1][1] < together[1][2]


def test_the_calibration_is_kept_in_a_file(calibrated, tmp_path):
    model, _ = calibrated
    save_calibration(model.calibration, tmp_path / "c.safetensors")
    for name, values in load_calibration(tmp_path / "c.safetensors").items():
        np.testing.assert_allclose(values, model.calibration[name], rtol=1e-3, atol=1e-4)


def test_what_stands_for_neurons_is_kept_in_steps_of_its_own(tmp_path):
    values = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    own = {"layer1.down": 1e-3 * values, "layer2.down": 5 * values, "layer3.down": 0 * values}
    save_calibration(own, tmp_path / "c.safetensors")
    kept = load_calibration(tmp_path / "c.safetensors")
    assert set(kept) == set(own)
    for name, wanted in own.items():
        np.testing.assert_allclose(kept[name], wanted, atol=np.abs(wanted).max() / 253)


def test_quality_is_measured_at_every_point(calibrated):
    model, _ = calibrated
    levels = [point.level for point in model.profile.points]
    report = measure_language(model, TEXT, levels, lambda done: None)
    assert len(report["points"]) == 4
    dense = report["points"][0]
    assert (dense["perplexity_ratio"], dense["token_agreement"], dense["macs_ratio"]) == (1, 1, 1)
    assert (dense["prompt_perplexity_ratio"], dense["prompt_macs_ratio"]) == (1, 1)
    assert report["points"][-1]["prompt_macs_ratio"] < 1
    tokens = windows(model.encode(TEXT), 1)[0]
    loss = losses(log_probabilities(model.network, tokens), tokens)
    assert loss.shape == (len(tokens) - 1,)
    assert report["points"][-1]["token_agreement"] < 1
    assert all(row["token_agreement_lower"] <= row["token_agreement"] for row in report["points"])


def test_quality_is_measured_on_long_texts(long_model, calibrated):
    model, _ = long_model
    text, shares = (TEXT[:20] * 110)[:2100], []
    dense, gated = measure_long_texts(model, text, (0.0, 1.0), shares.append)
    assert (dense["perplexity_ratio"], dense["near_heads"], dense["macs_ratio"]) == (1, 0, 1)
    assert 0.3 < gated["near_heads"] < 0.9
    assert gated["macs_ratio"] < 1
    assert gated["perplexity_ratio_lower"] <= gated["perplexity_ratio"]
    assert shares == [0.5, 1]
    assert measure_long_texts(model, TEXT, (0.0,), shares.append) == []
    assert measure_long_texts(calibrated[0], text, (0.0,), shares.append) == []


def test_a_ratio_of_perplexities_has_a_bound():
    random = np.random.default_rng(0)
    dense = random.uniform(0, 5, 2000).astype(np.float32)
    ratio, lower = perplexity_ratio(dense, dense + 0.1 + 0.05 * random.standard_normal(2000).astype(np.float32))
    assert lower < ratio == pytest.approx(np.exp(-0.1), rel=1e-2)
    assert perplexity_ratio(dense, dense - 0.1) == (1, 1)


def test_windows_are_from_all_over_the_text():
    assert windows(range(10), 2, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(range(8), 2, 10) == [list(range(8))]
    with pytest.raises(ValueError, match="too short"):
        windows([1], 2)


def test_a_text_of_ones_own_is_split():
    first, rest = split_text(["a", "b", "c"])
    assert (first, rest) == ("a\nb", "c")
