"""`sluice tune`: a short self-distillation that makes a model bear more skipping, resumable."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.language_tune import tune_language
from service.commands.options import Json, kind_of, require_torch
from service.commands.output import fail
from service.commands.speech_tune import tune_speech
from service.commands.text_tune import tune_texts
from service.commands.tuning import TuningOptions
from service.settings import SettingsError, load_settings


def tune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="minilm, smollm2, whisper-tiny.en, or the path of a folder")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="File of texts without labels, one a line; for a model of speech a folder of recordings", exists=True
        ),
    ],
    held_out: Annotated[
        Path | None, typer.Option(help="Other data of that kind, to measure the profile on", exists=True)
    ] = None,
    prose: Annotated[
        bool, typer.Option("--prose", help="The file is prose, with empty lines between paragraphs")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a model of texts 12000, of about 2048 tokens each; of a language model 300, of 512 tokens; of a "
            "model of speech 300, of 4 recordings",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result; SLUICE_HOME/calibrations, where the server looks")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of checkpoints; SLUICE_HOME/training by default")] = None,
    points: Annotated[int, typer.Option(min=2, max=65, help="Operating points from dense to the most-skipping")] = 13,
    seed: Annotated[int, typer.Option(help="Seed of all random choices")] = 0,
    further: Annotated[
        bool,
        typer.Option(
            "--further",
            help="Of a model of texts that was tuned: begin with what it learned, at a lower rate; minilm comes tuned",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Tune a model for its gates on unlabelled texts or recordings, and write its tuned profile.

    The dense model teaches low-rank differences of its lean layers, or what stands for what a model of speech or a
    language model skips; it stays as it is, and is what level 0 serves. An interrupted tuning goes on when it is
    started again with the same data and options. Where no other data is given for it, a third is kept to measure the
    profile on. What was not tuned is measured too, and the better is written. A model of speech and a language model
    must have a profile, whose points stay.
    """
    require_torch("tuning")
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error))
    options = TuningOptions(
        model=model,
        data=data,
        held_out=held_out,
        prose=prose,
        steps=steps,
        output=output or settings.calibrations,
        checkpoints=work or settings.home / "training",
        points=points,
        seed=seed,
        further=further,
        json=json,
    )
    kind = kind_of(model)
    if further and kind in ("language", "speech"):
        fail(f"--further is for models of texts, which {model} is not")
    if kind == "language":
        tune_language(options, settings.calibrations)
    elif kind == "speech":
        tune_speech(options, settings.calibrations)
    else:
        tune_texts(options, settings.calibrations)
