"""`sluice tune`: a short self-distillation that makes a model bear more skipping, resumable."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.gating.agreement import gain
from models.gating.profile import Profile
from models.zoo import catalog, language_family, speech_family, text_calibration, text_data, text_family
from models.zoo.family import served_name, split_datatype
from models.zoo.lean_differences import add_differences, load_differences, save_differences
from models.zoo.lean_layers import LeanLayers, save_lean
from models.zoo.text_inputs import request_of
from models.zoo.text_model import open_text_model
from service.commands.language_tune import tune_language
from service.commands.options import Json, require_torch
from service.commands.output import fail, step_progress
from service.commands.speech_tune import tune_speech
from service.commands.tables import print_profile
from service.settings import SettingsError, load_settings

MEASURED = 400
"""Texts that the profile is measured on, at most."""


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
            help="Of a model of texts 900, of about 1024 tokens each; of a language model 300, of 512 tokens; of a "
            "model of speech 300, of 4 recordings",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the result; SLUICE_HOME/calibrations, where the server looks")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of checkpoints; SLUICE_HOME/training by default")] = None,
    points: Annotated[int, typer.Option(min=2, max=65, help="Operating points from dense to the most-skipping")] = 13,
    seed: Annotated[int, typer.Option(help="Seed of all random choices")] = 0,
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
    if language_family.recognises(model):
        tune_language(model, data, held_out, prose, steps, output, work, seed, json)
        return
    if speech_family.recognises(model):
        tune_speech(model, data, held_out, steps, output, work, seed, json)
        return
    import torch

    from models.zoo.text_tuning import Step, TuningRecipe
    from models.zoo.text_tuning import tune as tune_encoder

    try:
        folder, name = text_family.locate(model), split_datatype(served_name(model))[0]
        texts = text_data.read_texts(data, prose)
        tuning, measured = (
            text_calibration.split_texts(texts) if held_out is None else (texts, text_data.read_texts(held_out, prose))
        )
        home = load_settings().home
        target, checkpoints = output or load_settings().calibrations, work or home / "training"
        for made in (target, checkpoints):
            made.mkdir(parents=True, exist_ok=True)
        path = target / f"{name}{text_family.TUNED_SUFFIX}"
        dense = open_text_model(name, folder)
        sequences = [tokens for text in tuning for tokens in dense.read(request_of(text, dense))]
        torch.set_num_threads(1)
        with step_progress() as bar:

            def calibrated(named: str, layers: LeanLayers | None) -> tuple[Profile, LeanLayers]:
                task = bar.add_task(f"calibrating {named} layers", total=1.0)
                return text_calibration.calibrate(
                    name,
                    folder,
                    tuning,
                    measured[:MEASURED],
                    lambda done: bar.update(task, completed=done),
                    lean=layers,
                    points=points,
                )

            fitted = calibrated("fitted", text_family.packaged_lean(model, load_settings().calibrations))
            task = bar.add_task("tuning", total=None)

            def report(step: Step) -> None:
                described = f"tuning, cosine {step.cosine:.4f}"
                bar.update(task, total=step.steps, completed=step.number, description=described)

            checkpoint = checkpoints / f"{name}-tuning-{seed}.pt"
            recipe = TuningRecipe(seed=seed) if steps is None else TuningRecipe(steps=steps, seed=seed)
            differences = tune_encoder(dense.encoder, dense.pooling, sequences, fitted[1], recipe, report, checkpoint)
            learned_of = text_family.differences_beside(path)
            save_differences(differences, learned_of)  # which rounds them
            learned = calibrated("tuned", add_differences(fitted[1], load_differences(learned_of)))
        gained = gain(learned[0], fitted[0])
        profile, lean = learned if gained > 0 else fitted
        if gained <= 0:
            learned_of.unlink()
        kept = "kept are the tuned layers" if gained > 0 else "kept are the layers that were fitted, without tuning"
        Console(stderr=True).print(f"tuning gained {gained:+.4f} of agreement at the same work: {kept}")
        save_lean(lean, text_family.lean_beside(path))
        profile.save(path)
    except (SettingsError, catalog.UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, path, json)
