"""`sluice calibrate` and `sluice quality` for models of speech."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.zoo import speech_calibration, speech_data, speech_family
from models.zoo.audio import COMMAND
from models.zoo.family import DATATYPES, UnknownModel, split_datatype
from models.zoo.speech_data import Clip
from models.zoo.speech_quality import measure_speech
from service.commands.options import levels_to_measure
from service.commands.output import fail, print_json, share_progress
from service.commands.tables import print_profile
from service.settings import SettingsError, load_settings


def calibrate_speech(name: str, data: Path | None, output: Path | None, points: int, json: bool) -> None:
    """Writes the profile to the folder `output`, by default where the server looks."""
    try:
        tuning, held_out, _ = speech_data.split(_clips(data))
        place, datatype = split_datatype(name)
        dense = speech_family.load(place, dense=True)
        folder = output or load_settings().calibrations
        folder.mkdir(parents=True, exist_ok=True)
        with share_progress() as bar:
            task = bar.add_task("calibrating", total=1.0)
            profile, calibrated = speech_calibration.calibrate(
                dense.name,
                dense.folder,
                tuning,
                held_out,
                lambda done: bar.update(task, completed=done),
                datatype=datatype or DATATYPES[0],
                points=points,
            )
        path = folder / f"{profile.model}.profile.json"
        calibrated.save(speech_family.calibrated_beside(path))
        profile.save(path)
    except ModuleNotFoundError as missing:
        fail(f"{missing}: {COMMAND}")
    except (SettingsError, UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, path, json)


def quality_of_speech(name: str, data: Path | None, sample: bool, levels: str | None, json: bool) -> None:
    """Prints every operating point, or each of the `levels`, on recordings that the thresholds were not found on, or, a
    `sample`, on those that the profile was not measured on either."""
    try:
        model = speech_family.load(name, load_settings().calibrations)
        _, held_out, rest = speech_data.split(_clips(data))
        clips = rest if sample else [*held_out, *rest]
        with share_progress() as bar:
            task = bar.add_task("measuring", total=1.0)
            measured = levels_to_measure(levels, model.profile)
            report = measure_speech(model, clips, measured, lambda done: bar.update(task, completed=done))
    except ModuleNotFoundError as missing:
        fail(f"{missing}: {COMMAND}")
    except (SettingsError, UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(report)
    else:
        _print(report)


def _clips(data: Path | None) -> list[Clip]:
    return speech_data.asterisk() if data is None else speech_data.of_folder(data)


def _print(report: dict[str, Any]) -> None:
    columns = ("level", "MACs", "skip rate", "word errors", "95 %", "lost, points", "95 %", "ms", "faster")
    title = (
        f"{report['model']} on {report['clips']} recordings, {report['words']} words, {report['seconds'] / 60:.1f} min"
    )
    table = Table(*columns, title=title)
    for row in report["points"]:
        low, high = row["wer_bounds"]
        lost_low, lost_high = row["wer_lost_bounds"]
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['skip_rate']:.1%}",
            f"{row['wer']:.2%}",
            f"{low * 100:.2f} to {high * 100:.2f}",
            f"{row['wer_lost'] * 100:+.2f}",
            f"{lost_low * 100:+.2f} to {lost_high * 100:+.2f}",
            "" if row["ms"] is None else f"{row['ms']:.1f}",
            "" if row["speedup"] is None else f"{row['speedup']:.2f}×",
        )
    console = Console(width=max(Console().width, 110))
    console.print(table)
    console.print(
        f"ms: from audio to text, the mean of {report['timed_clips']} recordings of {report['timed_seconds']:.1f} s on "
        "average, 2 to 10 s each, one thread; faster: than level 0, which is dense.",
        highlight=False,
    )
