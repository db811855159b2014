"""`sluice tune` for models of texts."""

from pathlib import Path

from rich.console import Console

from models.gating.agreement import gain
from models.gating.profile import Profile
from models.zoo import text_calibration, text_data, text_family
from models.zoo.family import UnknownModel, served_name, split_datatype
from models.zoo.lean_differences import LayerDifferences, add_differences, load_differences, save_differences
from models.zoo.lean_layers import LeanLayers, save_lean
from models.zoo.text_inputs import request_of
from models.zoo.text_model import open_text_model
from service.commands.output import fail, step_progress
from service.commands.tables import print_profile
from service.commands.tuning import TuningOptions

MEASURED = 400
"""Texts that the profile is measured on, at most."""


def tune_texts(options: TuningOptions, calibrations: Path) -> None:
    """Tunes lean layers on all processors, and writes them with their profile; those that it began with where they are
    the better ones."""
    from models.zoo.text_tuning import Step, TuningRecipe, tune

    try:
        model, seed = options.model, options.seed
        folder, name = text_family.locate(model), split_datatype(served_name(model))[0]
        texts = text_data.read_texts(options.data, options.prose)
        tuning, measured = (
            text_calibration.split_texts(texts)
            if options.held_out is None
            else (texts, text_data.read_texts(options.held_out, options.prose))
        )
        options.make_folders()
        path = options.output / f"{name}{text_family.TUNED_SUFFIX}"
        dense = open_text_model(name, folder)
        sequences = [tokens for text in tuning for tokens in dense.read(request_of(text, dense))]
        recipe = TuningRecipe(seed=seed) if options.steps is None else TuningRecipe(steps=options.steps, seed=seed)
        begun = _learned_before(model, calibrations) if options.further else ()
        recipe = recipe.further() if begun else recipe
        with step_progress() as bar:

            def calibrated(named: str, layers: LeanLayers | None, tuned: bool) -> tuple[Profile, LeanLayers]:
                task = bar.add_task(f"calibrating {named} layers", total=1.0)
                return text_calibration.calibrate(
                    name,
                    folder,
                    tuning,
                    measured[:MEASURED],
                    lambda done: bar.update(task, completed=done),
                    lean=layers,
                    tuned=tuned,
                    points=options.points,
                )

            fitted = calibrated("fitted", text_family.packaged_lean(model, calibrations), tuned=False)
            before = calibrated("earlier", add_differences(fitted[1], begun), tuned=True) if begun else fitted
            task = bar.add_task("tuning", total=None)

            def report(step: Step) -> None:
                described = f"tuning, cosine {step.cosine:.4f}"
                bar.update(task, total=step.steps, completed=step.number, description=described)

            differences = tune(
                dense.encoder, dense.pooling, sequences, fitted[1], recipe, report, options.checkpoint(name), begun
            )
            learned_of = text_family.differences_beside(path)
            save_differences(differences, learned_of)  # which rounds them
            learned = calibrated("tuned", add_differences(fitted[1], load_differences(learned_of)), tuned=True)
        gained = gain(learned[0], before[0])
        profile, lean = learned if gained > 0 else before
        if gained <= 0:
            save_differences(begun, learned_of) if begun else learned_of.unlink()
        rest = "as they were tuned before" if begun else "that were fitted, without tuning"
        kept = "kept are the tuned layers" if gained > 0 else f"kept are the layers {rest}"
        Console(stderr=True).print(f"tuning gained {gained:+.4f} of agreement at the same work: {kept}")
        save_lean(lean, text_family.lean_beside(path))
        profile.save(path)
    except (UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    print_profile(profile, path, options.json)


def _learned_before(model: str, calibrations: Path) -> LayerDifferences:
    """Raises `ValueError` where nothing was."""
    profile = text_family.profile_path(model, calibrations)
    learned = text_family.differences_beside(profile) if profile else None
    if learned is None or not learned.exists():
        raise ValueError(f"{model} was not tuned before: sluice tune {model} without --further comes first")
    return load_differences(learned)
