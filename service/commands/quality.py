"""`sluice quality`: a model at each of its operating points on data that it was neither trained nor calibrated on."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models.gating.measurement import Measurement, measure, median_seconds, paired_difference, work_by_difficulty
from models.gating.profile import lower_bound
from models.zoo import fashion, fashion_data
from models.zoo.catalog import MissingWeights
from models.zoo.fashion_data import LabelledImages, MissingData
from models.zoo.fashion_family import fashion_files
from models.zoo.fashion_weights import PACKAGED, Files
from service.commands.language import quality_of_language
from service.commands.options import Data, Json, Levels, Name, kind_of, levels_to_measure, require_fashion
from service.commands.output import fail, print_json, share_progress
from service.commands.speech import quality_of_speech
from service.commands.texts import quality_of_texts
from service.settings import SettingsError, load_settings

TIMED_IMAGES = 300
COMPARED_AT = 5.0
"""The baseline with the same channels for every image is compared at this many times fewer MACs."""


def quality(
    model: Name = "fashion",
    data: Data = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="A quick look: the images that come with Sluice; of recordings a third")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights beside their own calibration and profile")] = None,
    levels: Levels = None,
    json: Json = False,
) -> None:
    """Accuracy, agreement with dense, MACs and time of every operating point, on the 10,000 test images.

    Beside it: the same network trained plain, and the one whose channels are the same for every image, at 5× fewer
    MACs. Of a model of texts, minilm or the path of a Hugging Face folder: agreement with dense on the sentences of a
    novel, or on texts of your own with --data, one a line; of embeddings also how alike rated documents are. Of a model
    of speech: word errors, and the time from audio to text, on the recordings of Asterisk's voice menus that
    calibration did not see, or on a folder of recordings with their texts. Of a language
    model: perplexity, and how often the likeliest token is the dense one, on a novel or on a text of your own."""
    match kind_of(model):
        case "texts":
            quality_of_texts(model, data, levels, json)
            return
        case "language":
            quality_of_language(model, data, levels, json)
            return
        case "speech":
            quality_of_speech(model, data, sample, levels, json)
            return
    require_fashion(model)
    try:
        images = fashion_data.sample() if sample else fashion_data.test(data)
        if weights:
            served = fashion.load(Files.named(weights.parent, weights.name.partition(".")[0]), model)
        else:
            served = fashion.load(fashion_files(load_settings().calibrations), model)
        with share_progress() as bar:
            report = measure_all(served, images, levels_to_measure(levels, served.profile), bar)
    except (SettingsError, MissingData, MissingWeights, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(report)
    else:
        _print(report)


def measure_all(
    model: fashion.FashionClassifier, images: LabelledImages, levels: Sequence[float], bar: Progress
) -> dict[str, Any]:
    """Everything that the command reports, as plain data. The first level is 0."""
    task = bar.add_task("measuring", total=len(levels) + 3)

    def run(variant: fashion.FashionClassifier, level: float) -> Measurement:
        measured = measure(variant, images.images, level)
        bar.advance(task)
        return measured

    dense, *others = [run(model, level) for level in levels]
    plain, static = (_variant(name) for name in ("plain", "static"))
    timed = [(model, level) for level in levels]
    dense_seconds, *seconds = median_seconds([(plain or model, 0.0), *timed], images.images[:TIMED_IMAGES])
    report: dict[str, Any] = {
        "model": model.name,
        "images": len(images),
        "dense_ms": dense_seconds * 1e3,
        "points": [
            {**_row(m, dense, images.labels), "ms": taken * 1e3, "time_ratio": taken / dense_seconds}
            for m, taken in zip((dense, *others), seconds, strict=True)
        ],
    }
    if plain:
        correct = run(plain, 0.0).predicted == images.labels
        report["plain"] = {"accuracy": float(correct.mean())}
    levels_compared = [v.profile.lowest_level(1 / COMPARED_AT) if v else None for v in (model, static)]
    if static and None not in levels_compared:
        gated_at, static_at = (run(v, float(at or 0)) for v, at in zip((model, static), levels_compared, strict=True))
        difference = paired_difference(gated_at.predicted == images.labels, static_at.predicted == images.labels)
        report["static"] = {
            "fewer_macs": static_at.fewer_macs,
            "accuracy": float((static_at.predicted == images.labels).mean()),
            "gated_fewer_macs": gated_at.fewer_macs,
            "gated_accuracy": float((gated_at.predicted == images.labels).mean()),
            "difference": difference.mean,
            "margin": difference.margin,
        }
    return report


def _variant(name: str) -> fashion.FashionClassifier | None:
    files = Files.named(PACKAGED, f"fashion-{name}")
    return fashion.load(files, name) if files.profile.exists() else None


def _row(measured: Measurement, dense: Measurement, labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    correct, agreeing = measured.predicted == labels, measured.predicted == dense.predicted
    lost = paired_difference(dense.predicted == labels, correct)
    return {
        "level": measured.level,
        "fewer_macs": measured.fewer_macs,
        "skip_rate": float(measured.skip_rate.mean()),
        "accuracy": float(correct.mean()),
        "accuracy_lower": lower_bound(int(correct.sum()), len(correct)),
        "points_lost": lost.mean * 100,
        "points_margin": lost.margin * 100,
        "agreement": float(agreeing.mean()),
        "macs_by_confidence": work_by_difficulty(measured, dense.confidence),
    }


def _print(report: dict[str, Any]) -> None:
    columns = (
        "level",
        "fewer MACs",
        "skip rate",
        "accuracy",
        "points lost",
        "agreement",
        "ms",
        "of dense",
        "hard/easy",
    )
    table = Table(*columns, title=f"{report['model']} on {report['images']} test images")
    for row in report["points"]:
        hardest, *_, easiest = row["macs_by_confidence"]
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['fewer_macs']:.2f}×",
            f"{row['skip_rate']:.1%}",
            f"{row['accuracy']:.2%}",
            f"{row['points_lost']:+.2f} ± {row['points_margin']:.2f}",
            f"{row['agreement']:.2%}",
            f"{row['ms']:.2f}",
            f"{row['time_ratio']:.2f}",
            f"{hardest / easiest:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print("hard/easy: MACs of the least confident quarter of the images / those of the most confident.")
    console.print(f"of dense: relative to {report['dense_ms']:.2f} ms, the network of which nothing is skipped.")
    if "plain" in report:
        console.print(f"The same network trained without gates: {report['plain']['accuracy']:.2%}")
    if "static" in report:
        static = report["static"]
        console.print(
            f"The same channels for every image, {static['fewer_macs']:.2f}× fewer MACs: {static['accuracy']:.2%}; "
            f"chosen per image, {static['gated_fewer_macs']:.2f}×: {static['gated_accuracy']:.2%}; "
            f"difference {static['difference'] * 100:+.2f} ± {static['margin'] * 100:.2f} points"
        )
