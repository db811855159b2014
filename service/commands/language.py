"""`sluice calibrate` and `sluice quality` for language models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.zoo import language_calibration, language_family, text_data
from models.zoo.family import UnknownModel, split_datatype
from models.zoo.language_calibration_file import save_calibration
from models.zoo.language_quality import LONG_TOKENS, measure_language, measure_long_texts
from service.commands.options import levels_to_measure, require_torch
from service.commands.output import fail, print_json, share_progress
from service.commands.tables import print_profile
from service.settings import SettingsError, load_settings


def calibrate_language(name: str, data: Path | None, output: Path | None, points: int, json: bool) -> None:
    """Writes the profile to the folder `output`, by default where the server looks."""
    require_torch("calibration")
    try:
        if data is None:
            tuning, held_out, fitting = language_calibration.default_texts()
        else:
            tuning, held_out = language_calibration.split_text(text_data.read_lines(data))
            fitting = tuning
        settings = load_settings()
        # The profile is of the weights, whatever their datatype: thresholds are found in the fastest exact enough.
        place = split_datatype(name)[0]
        model = language_family.load(f"{place}:bf16", settings.calibrations, dense=True)
        folder = output or settings.calibrations
        folder.mkdir(parents=True, exist_ok=True)
        with share_progress() as bar:
            task = bar.add_task("calibrating", total=1.0)
            profile, calibration = language_calibration.calibrate(
                model,
                tuning,
                held_out,
                lambda done: bar.update(task, completed=done),
                points=points,
                fitting=fitting,
            )
        path = folder / f"{profile.model}.profile.json"
        save_calibration(calibration, language_family.calibration_beside(path))
        profile.save(path)
    except (SettingsError, UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, path, json)


def quality_of_language(name: str, data: Path | None, levels: str | None, json: bool) -> None:
    """Prints every operating point, or each of the `levels`, on a text that neither calibration nor the profile saw."""
    try:
        text = " ".join(text_data.sample()) if data is None else "\n".join(text_data.read_lines(data))
        model = language_family.load(name, load_settings().calibrations)
        with share_progress() as bar:
            task = bar.add_task("measuring", total=1.0)
            measured = levels_to_measure(levels, model.profile)
            report = measure_language(model, text, measured, lambda done: bar.update(task, completed=done / 2))
            report["long_texts"] = measure_long_texts(
                model, text, measured, lambda done: bar.update(task, completed=(1 + done) / 2)
            )
            bar.update(task, completed=1)  # a short text has no long ones
    except (SettingsError, UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(report)
    else:
        _print(report)


def _print_long_texts(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    columns = (
        "level",
        "MACs",
        "heads that read near",
        "perplexity",
        "of dense",
        "at most",
        "ms a step",
        "times as fast",
    )
    table = Table(*columns, title=f"behind {LONG_TOKENS // 2} tokens, up to {LONG_TOKENS}, one sequence")
    for row in rows:
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['near_heads']:.1%}",
            f"{row['perplexity']:.2f}",
            f"{1 / row['perplexity_ratio']:.4f}",
            f"{1 / row['perplexity_ratio_lower']:.4f}",
            f"{row['ms_per_step']:.1f}",
            f"{row['times_as_fast']:.2f}",
        )
    console.print(table)
    console.print(
        "Heads that read near: those of keys and values that attend to the first positions and the last ones alone, "
        "since they did not attend to others when they were last asked.",
        highlight=False,
    )


def _print(report: dict[str, Any]) -> None:
    columns = (
        *("level", "MACs", "skip rate", "perplexity", "of dense", "at most", "same token", "at least", "ms a step"),
        *("MACs of a prompt", "behind it", "at most"),
    )
    table = Table(*columns, title=f"{report['model']} on {report['tokens']} tokens, and {report['steps']} steps")
    for row in report["points"]:
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['skip_rate']:.1%}",
            f"{row['perplexity']:.2f}",
            f"{1 / row['perplexity_ratio']:.4f}",
            f"{1 / row['perplexity_ratio_lower']:.4f}",
            f"{row['token_agreement']:.1%}",
            f"{row['token_agreement_lower']:.1%}",
            f"{row['ms_per_step']:.1f}",
            f"{row['prompt_macs_ratio']:.3f}",
            f"{1 / row['prompt_perplexity_ratio']:.4f}",
            f"{1 / row['prompt_perplexity_ratio_lower']:.4f}",
        )
    console = Console(width=max(Console().width, 130))
    console.print(table)
    console.print(
        "MACs and skip rate: of a step, dense being 1. of dense, same token: perplexity relative to the dense model's, "
        "and how often the likeliest token is its own, with one-sided 95 % bounds. A step is of several sequences. "
        "Behind it: the perplexity of dense steps behind a prompt at the level, relative to that behind a dense one.",
        highlight=False,
    )
    if report["long_texts"]:
        _print_long_texts(report["long_texts"], console)
