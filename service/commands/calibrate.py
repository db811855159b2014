"""`sluice calibrate`: a profile for the weights at hand."""

from pathlib import Path
from typing import Annotated

import typer

from models.zoo.fashion_data import MissingData
from models.zoo.fashion_family import fashion_files
from models.zoo.fashion_shape import LEAST_KEPT
from models.zoo.fashion_weights import Files
from service.commands.language import calibrate_language
from service.commands.options import Data, Json, Name, kind_of, require_fashion, require_torch
from service.commands.output import fail, share_progress
from service.commands.speech import calibrate_speech
from service.commands.tables import print_profile
from service.commands.texts import calibrate_texts
from service.settings import SettingsError, load_settings


def calibrate(
    model: Name = "fashion",
    data: Data = None,
    weights: Annotated[Path | None, typer.Option(help="Weights to calibrate; the packaged ones by default")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the result: beside given weights, else SLUICE_HOME/calibrations, where the server looks"
        ),
    ] = None,
    least_kept: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Share of channels kept at the most-skipping point")
    ] = LEAST_KEPT,
    points: Annotated[int, typer.Option(min=2, max=65, help="Operating points from dense to the most-skipping")] = 13,
    json: Json = False,
) -> None:
    """Measure a model's operating points and write its profile.

    Of fashion, thresholds come from 3,000 training images, what to expect of each point from 5,000 images held out from
    training. Of a model of texts, minilm or the path of a Hugging Face folder, both come from texts without labels: by
    default news and a novel, with --data a file of your own, one text a line. Of a model of speech,
    whisper-tiny.en or a folder, they come from the recordings of Asterisk's voice menus, with --data from a folder of
    your own. Of a language model, smollm2, a folder or a GGUF file, they come from news and a novel, with --data from a
    text of your own.
    """
    others = {"texts": calibrate_texts, "language": calibrate_language, "speech": calibrate_speech}
    if calibrate_other := others.get(kind_of(model)):
        calibrate_other(model, data, output, points, json)
        return
    require_fashion(model)
    require_torch("calibration")
    from models.zoo import fashion_training

    try:
        folder = output or (weights.parent if weights else load_settings().calibrations)
        folder.mkdir(parents=True, exist_ok=True)
        own = Files.named(folder, weights.name.partition(".")[0] if weights else model)
        files = Files(weights or fashion_files().weights, own.calibration, own.profile)
        with share_progress() as bar:
            task = bar.add_task("calibrating", total=1.0)
            profile = fashion_training.calibrate(
                files, model, data, lambda done: bar.update(task, completed=done), points=points, least_kept=least_kept
            )
    except (SettingsError, MissingData, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, files.profile, json)
