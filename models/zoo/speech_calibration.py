"""The profile of a model of speech, and the rest of its calibration, from recordings without texts. Needs no torch: it
runs the serving code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.gating.agreement import CONFIDENCE, Agreements, agreements, gain, operating_point
from models.gating.greedy import allocate, spread
from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, Tensors
from models.zoo.log_mel import HOP, RATE, log_mel, speech_frames
from models.zoo.speech import SpeechRecognizer, Wanted
from models.zoo.speech_data import Clip
from models.zoo.whisper import DENSE, HEADS_GATE, POSITIONS_GATE, WORDS_GATE, Whisper
from models.zoo.whisper_heads import CalibratedHeads, ranked
from models.zoo.whisper_layers import Array, Watch
from models.zoo.whisper_words import Calibrated, preview_of
from models.zoo.word_errors import rate_bounds, word_errors

POINTS = 9

MARGINS = (15.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Seconds behind the speech that are to be heard: what the gate on positions tries."""

NEURON_SHARES = (0.15, 0.3, 0.45, 0.6)
"""Of neurons that are to be skipped: for each gate on them these quantiles of the saliency are tried."""

HEAD_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Of all heads that are to be left out: what the gate on them tries."""

HEAD_TRIALS = 1800
"""Clips that are heard without a head, at most: those of a large model are tried on fewer each."""

WORD_THRESHOLD = 1e-4
"""Of the gate on words, at every level but 0: with more of them left out, likely ones are missed and hardly any time is
saved."""

LEAST_LIKELIHOOD = 0.85
"""Of the dense model's texts, a token, relative to what it is without gates: where the dial ends."""

TUNING_CLIPS, MEASURED_CLIPS = 24, 192


@dataclass(frozen=True, slots=True)
class Example:
    """A clip as the dense model heard it: its spectrum and speech frames, the tokens of its text and its end behind the
    `prompted` ones, and their mean log probability."""

    spectrum: Array
    speech: int
    tokens: list[int]
    prompted: int
    log_probability: float


def calibrate(
    name: str,
    folder: Path,
    tuning: Sequence[Clip],
    held_out: Sequence[Clip],
    report: Callable[[float], None],
    *,
    datatype: str = "fp32",
    points: int = POINTS,
) -> tuple[Profile, Calibrated]:
    """The calibration and thresholds from `tuning`, the latter allocated greedily; what to expect of them from
    `held_out`. `report` is called with the share done, 0 to 1."""
    plain = SpeechRecognizer(name, folder, datatype=datatype)
    few = [tuning[i] for i in np.random.default_rng(0).permutation(len(tuning))[:TUNING_CLIPS]]
    heard = [example for clip in few if (example := listen(plain, clip.audio)) is not None]
    report(0.1)
    calibrated = _calibrated(plain, heard, lambda done: report(0.1 + 0.15 * done))
    model = SpeechRecognizer(name, folder, calibrated=calibrated, datatype=datatype)

    def evaluate(thresholds: Mapping[str, float]) -> tuple[float, float]:
        rows = []
        for clip in heard:
            context = GateContext(0.0)
            likelihood = log_probability(model.whisper, clip, context, thresholds) - clip.log_probability
            rows.append((1 - context.macs_skipped_ratio, min(1.0, float(np.exp(likelihood)))))
        macs_ratio, quality = np.mean(rows, axis=0)
        return float(macs_ratio), float(quality)

    seconds = model.window_seconds
    margins = tuple(1 - margin / seconds for margin in MARGINS if margin < seconds)
    grids = {POSITIONS_GATE: margins, HEADS_GATE: HEAD_SHARES} | _neuron_grids(model, heard)
    path = allocate(grids, evaluate, LEAST_LIKELIHOOD, lambda done: report(0.25 + 0.35 * done))

    found = [
        thresholds | {WORDS_GATE: WORD_THRESHOLD if i else 0.0}
        for i, thresholds in enumerate(spread(path, points, geometric=True))
    ]
    return measured(model, found, held_out, lambda done: report(0.6 + 0.4 * done)), calibrated


def better_of(
    model: SpeechRecognizer,
    calibrated: Calibrated,
    tuned: Calibrated,
    held_out: Sequence[Clip],
    report: Callable[[float], None],
    *,
    datatype: str = "fp32",
) -> tuple[Profile, Calibrated, bool]:
    """The profile of a calibrated model on `held_out` with its own calibration or with that which was `tuned`, and
    which of the two: the one that agrees more with the dense model for the same work, over all points."""
    thresholds = [point.thresholds for point in model.profile.points]

    def profile_of(calibration: Calibrated, done: float) -> Profile:
        other = SpeechRecognizer(model.name, model.folder, calibrated=calibration, datatype=datatype)
        return measured(other, thresholds, held_out, lambda share: report(done + share / 2))

    own, other = profile_of(calibrated, 0.0), profile_of(tuned, 0.5)
    return (other, tuned, True) if gain(other, own) > 0 else (own, calibrated, False)


def measured(
    model: SpeechRecognizer,
    thresholds: Sequence[Mapping[str, float]],
    held_out: Sequence[Clip],
    report: Callable[[float], None],
) -> Profile:
    """The profile of these thresholds, of a point each, dense first."""
    chosen = np.linspace(0, len(held_out) - 1, min(len(held_out), MEASURED_CLIPS)).round().astype(int)
    clips = [held_out[i] for i in chosen]
    wanted = [model.run({"audio": clip.audio}, GateContext(0.0)) for clip in clips]
    points: list[OperatingPoint] = []
    for level, found in zip(np.linspace(0, 1, len(thresholds)).tolist(), thresholds, strict=True):
        points.append(_measured(model, level, found, clips, wanted))
        report(len(points) / len(thresholds))
    return Profile(model.name, len(clips), CONFIDENCE, model.digest, tuple(points))


def _measured(
    model: SpeechRecognizer,
    level: float,
    thresholds: Mapping[str, float],
    clips: Sequence[Clip],
    dense: Sequence[Tensors],
) -> OperatingPoint:
    """What these thresholds do; `dense` is what the dense model says."""
    said: list[Tensors] = []

    def run(inputs: Tensors, context: GateContext) -> Tensors:
        text = model.transcribe(inputs["audio"], Wanted(), context, thresholds).text
        said.append({"text": np.array([text.encode()], object)})
        return said[-1]

    if level == 0:
        ones = np.ones(len(clips))
        return _with_accuracy(operating_point(0.0, thresholds, Agreements(ones, ones, 0 * ones)), dense, clips)
    compared = agreements(run, model.agreement, [{"audio": clip.audio} for clip in clips], dense, level)
    return _with_accuracy(operating_point(level, thresholds, compared), said, clips)


def _with_accuracy(point: OperatingPoint, said: Sequence[Tensors], clips: Sequence[Clip]) -> OperatingPoint:
    """With 1 − word error rate as the accuracy, where every clip has its text."""
    if any(clip.text is None for clip in clips):
        return point
    texts = [str(outputs["text"][0], "utf-8") for outputs in said]
    errors, words = np.array([word_errors(text, clip.text or "") for text, clip in zip(texts, clips, strict=True)]).T
    _, highest = rate_bounds(errors, words)
    return replace(point, accuracy=1 - float(errors.sum() / words.sum()), accuracy_lower=1 - highest)


def _calibrated(model: SpeechRecognizer, heard: Sequence[Example], report: Callable[[float], None]) -> Calibrated:
    """The means of each layer's neurons and of its heads over the positions that are there with a short margin, the
    ranks of the heads, and the preview of the words."""
    sums: dict[str, Array] = {}
    rows: dict[str, int] = {}
    states: list[Array] = []

    def watch(name: str, values: Array) -> None:
        if name == WORDS_GATE:
            states.append(values)
        else:
            sums[name] = sums.get(name, 0) + values.sum(0)
            rows[name] = rows.get(name, 0) + len(values)

    for clip in heard:
        log_probability(model.whisper, clip, GateContext(0.0), _short(model), watch)
    whisper = model.whisper
    means, attended = (
        [(sums[name] / rows[name]).astype(np.float32) for name in names]
        for names in (whisper.neuron_gates, whisper.attentions)
    )
    heads = _ranked_heads(model, attended, heard, report)
    return Calibrated(means, *preview_of(np.concatenate(states), whisper.words), heads)


def _ranked_heads(
    model: SpeechRecognizer, means: Sequence[Array], heard: Sequence[Example], report: Callable[[float], None]
) -> list[CalibratedHeads]:
    """The heads of all attentions, by how much less likely what was heard is without each of them alone."""
    whisper, shape = model.whisper, model.whisper.shape
    heads = [shape.encoder_heads] * shape.encoder_layers + [shape.decoder_heads] * (2 * shape.decoder_layers)
    clips = heard[: max(1, HEAD_TRIALS // sum(heads))]
    places = [(attention, head) for attention, count in enumerate(heads) for head in range(count)]
    losses = []
    for attention, head in places:
        tried = [CalibratedHeads(mean, np.ones(count, np.float32)) for mean, count in zip(means, heads, strict=True)]
        tried[attention].saliency[head] = 0.0
        without = whisper.with_heads(tried)
        thresholds = _short(model) | {HEADS_GATE: 0.5}
        losses.append(-sum(log_probability(without, clip, GateContext(0.0), thresholds) for clip in clips))
        report(len(losses) / len(places))
    ranks = iter(np.split(ranked(losses), np.cumsum(heads)[:-1]))
    return [CalibratedHeads(mean, next(ranks)) for mean in means]


def _neuron_grids(model: SpeechRecognizer, heard: Sequence[Example]) -> dict[str, tuple[float, ...]]:
    """For each gate on neurons the thresholds that skip the shares of `NEURON_SHARES` of them."""
    saliencies: dict[str, list[Array]] = {gate: [] for gate in model.whisper.neuron_gates}

    def watch(name: str, neurons: Array) -> None:
        gate = model.whisper.gate(name) if name in saliencies else None
        if gate is not None:
            saliencies[name].append(np.sqrt(np.square(neurons - gate.means).mean(0)) * gate.norms)

    for clip in heard:
        log_probability(model.whisper, clip, GateContext(0.0), _short(model), watch)
    return {
        gate: tuple(np.quantile(np.concatenate(found), NEURON_SHARES).tolist()) for gate, found in saliencies.items()
    }


def _short(model: SpeechRecognizer) -> dict[str, float]:
    """The gate on positions alone, with a margin of two seconds: what the neurons see where they are gated."""
    return {POSITIONS_GATE: max(0.0, 1 - 2 / model.window_seconds)}


def listen(model: SpeechRecognizer, audio: Array) -> Example | None:
    """What the dense model hears in the first window of a clip; None where it is silent."""
    shape, context = model.whisper.shape, GateContext(0.0)
    audio = audio[: shape.frames * HOP]
    if not audio.any():
        return None
    spectrum = log_mel(audio, shape.mels, shape.frames)
    speech = speech_frames(spectrum)
    window = model.whisper.encode(spectrum, speech, context)
    language = model.decoder.language(window, context, DENSE) if model.multilingual else None
    prompt = model.decoder.prompt(language, (), times=False)
    said = model.decoder.say(window, prompt, len(audio) / RATE, False, context, DENSE)
    # That it ends is part of what was heard: a decoder that lost the heads for it says the same for ever.
    tokens = [*prompt, *said.tokens, model.decoder.end][: shape.context]
    heard = Example(spectrum, speech, tokens, len(prompt), 0.0)
    return replace(heard, log_probability=log_probability(model.whisper, heard, context))


def log_probability(
    whisper: Whisper,
    heard: Example,
    context: GateContext,
    thresholds: Mapping[str, float] = DENSE,
    watch: Watch | None = None,
) -> float:
    """The mean, over the tokens that were heard, of their log probabilities with these thresholds."""
    window = whisper.encode(heard.spectrum, heard.speech, context, thresholds, watch)
    decoding = whisper.listen(window, context, thresholds)
    logits = whisper.score(heard.tokens, decoding, context, thresholds, watch)[heard.prompted - 1 : -1]
    if not len(logits):
        return 0.0
    greatest = logits.max(1)
    sums = greatest + np.log(np.exp(logits - greatest[:, None]).sum(1))
    said = logits[np.arange(len(logits)), heard.tokens[heard.prompted :]]
    return float((said - sums).mean())
