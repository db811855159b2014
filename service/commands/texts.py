"""`sluice calibrate` and `sluice quality` for models of texts."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.zoo import catalog, text_calibration, text_data, text_family
from models.zoo.family import served_name, split_datatype
from models.zoo.lean_layers import save_lean
from models.zoo.text_model import open_text_model
from models.zoo.text_quality import measure_texts
from service.commands.options import levels_to_measure
from service.commands.output import fail, print_json, share_progress
from service.commands.tables import print_profile
from service.settings import SettingsError, load_settings


def calibrate_texts(name: str, data: Path | None, output: Path | None, points: int, json: bool) -> None:
    """Writes the profile to the folder `output`, by default where the server looks; the tuned one where the model was
    tuned."""
    try:
        place = text_family.locate(name)
        if data is not None:
            tuning, held_out = text_calibration.split_texts(text_data.read_lines(data))
        elif open_text_model(name, place).outputs[0].name == "score":
            fail(f"{name} scores texts or pairs of them: --data FILE must have some, one a line, with a tab in a pair")
        else:
            tuning, held_out = text_calibration.default_texts()
        calibrations = load_settings().calibrations
        folder, short = output or calibrations, split_datatype(served_name(name))[0]
        folder.mkdir(parents=True, exist_ok=True)
        tuned = text_family.tuned_lean(name, calibrations)
        lean = tuned or (text_family.packaged_lean(name, calibrations) if data is None else None)
        with share_progress() as bar:
            task = bar.add_task("calibrating", total=1.0)

            def report(done: float) -> None:
                bar.update(task, completed=done)

            path = folder / f"{short}{text_family.TUNED_SUFFIX if tuned else '.profile.json'}"
            profile, lean = text_calibration.calibrate(
                short, place, tuning, held_out, report, lean=lean, tuned=tuned is not None, points=points
            )
        save_lean(lean, text_family.lean_beside(path))
        profile.save(path)
    except (SettingsError, catalog.UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, path, json)


def quality_of_texts(name: str, data: Path | None, levels: str | None, json: bool) -> None:
    """Prints every operating point, or each of the `levels`, on texts that neither calibration nor the profile saw:
    those in `data`, one a line, by default sentences of a novel; and of embeddings on rated documents."""
    try:
        model = text_family.load(name, load_settings().calibrations)
        texts = text_data.sample() if data is None else text_data.read_lines(data)
        rated = text_data.lee() if model.outputs[0].name == "embedding" else None
        with share_progress() as bar:
            task = bar.add_task("measuring", total=1.0)
            measured = levels_to_measure(levels, model.profile)
            report = measure_texts(model, texts, rated, measured, lambda done: bar.update(task, completed=done))
    except (SettingsError, catalog.UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    columns = ("level", "MACs", "skip rate", "agreement", "lower bound", "worst 5 %", "ms", "of dense")
    table = Table(*columns, title=f"{report['model']} on {report['texts']} texts: agreement with dense")
    for row in report["points"]:
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['skip_rate']:.1%}",
            *(f"{row[key]:.4f}" for key in ("agreement", "agreement_lower", "agreement_worst")),
            f"{row['ms']:.2f}",
            f"{row['time_ratio']:.3f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if report["documents"]:
        console.print(_table_of_documents(report))
    console.print(
        f"Lower bounds are one-sided, at {report['confidence']:.0%}. Agreement of embeddings is their cosine to dense."
    )


def _table_of_documents(report: dict[str, Any]) -> Table:
    columns = (
        *("level", "MACs", "ms", "of dense", "cosine", "Spearman to dense", "lower bound"),
        *("Spearman to people", "lower bound"),
    )
    keys = ("cosine", "spearman", "spearman_lower", "spearman_people", "spearman_people_lower")
    table = Table(*columns, title=f"{report['model']} on {report['documents']} rated news documents")
    for row in report["points"]:
        found = row["documents"]
        table.add_row(
            f"{row['level']:.3f}",
            f"{found['macs_ratio']:.3f}",
            f"{found['ms']:.2f}",
            f"{found['time_ratio']:.3f}",
            *(f"{found[key]:.4f}" for key in keys),
        )
    return table
