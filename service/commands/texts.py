"""`sluice calibrate` and `sluice quality` for models of texts."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models.gating.neuron_means import save_means
from models.zoo import catalog, text_calibration, text_data, text_family
from models.zoo.text_quality import measure_texts
from service.commands.output import fail, print_json
from service.commands.tables import profile_table
from service.settings import SettingsError, load_settings


def calibrate_texts(name: str, data: Path | None, output: Path | None, points: int, json: bool) -> None:
    """Writes the profile to the folder `output`, by default where the server looks."""
    try:
        if data is None:
            tuning, held_out = text_calibration.default_texts()
        else:
            tuning, held_out = text_calibration.split_texts(text_data.read_lines(data))
        dense = text_family.load(name)
        folder = output or load_settings().calibrations
        folder.mkdir(parents=True, exist_ok=True)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("calibrating", total=1.0)
            profile, means = text_calibration.calibrate(
                dense.name,
                dense.folder,
                tuning,
                held_out,
                lambda done: bar.update(task, completed=done),
                points=points,
            )
        path = folder / f"{profile.model}.profile.json"
        save_means(means, text_family.means_beside(path))
        profile.save(path)
    except (SettingsError, catalog.UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(profile.as_dict())
    else:
        Console().print(profile_table(profile))
        Console().print(f"profile: {path}", soft_wrap=True)


def quality_of_texts(name: str, json: bool) -> None:
    """Prints every operating point on texts that neither calibration nor the profile saw."""
    try:
        model = text_family.load(name, load_settings().calibrations)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("measuring", total=1.0)
            report = measure_texts(model, text_data.lee(), lambda done: bar.update(task, completed=done))
    except (SettingsError, catalog.UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    columns = ("level", "MACs", "skip rate", "cosine", "lower bound", "worst 5 %", "ms", "of dense")
    table = Table(*columns, title=f"{report['model']} on {report['sentences']} sentences of Moby Dick")
    for row in report["points"]:
        table.add_row(
            f"{row['level']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['skip_rate']:.1%}",
            *(f"{row[key]:.4f}" for key in ("cosine", "cosine_lower", "cosine_worst")),
            f"{row['ms']:.2f}",
            f"{row['time_ratio']:.3f}",
        )
    of_documents = ("level", "MACs", "cosine", "Spearman to dense", "Spearman to people")
    documents = Table(*of_documents, title=f"{report['model']} on {report['documents']} rated news documents")
    for row in report["points"]:
        cells = (row["documents"][key] for key in ("macs_ratio", "cosine", "spearman", "spearman_people"))
        documents.add_row(f"{row['level']:.3f}", *(f"{cell:.4f}" for cell in cells))
    console = Console()
    console.print(table)
    console.print(documents)
