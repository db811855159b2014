"""`sluice tune` for language models."""

from pathlib import Path

from rich.console import Console

from models.zoo import language_calibration, language_family, text_data
from models.zoo.family import UnknownModel, split_datatype
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_calibration_file import save_calibration
from models.zoo.language_gates import windows
from service.commands.output import fail, step_progress
from service.commands.tables import print_profile
from service.commands.tuning import TuningOptions

MOST_WINDOWS = 4000


def tune_language(options: TuningOptions, calibrations: Path) -> None:
    """Tunes what stands for skipped channels, and writes it with its profile where that is the better of the two on the
    texts that are kept from tuning."""
    import torch

    from models.zoo.language_tuning import TuningRecipe, tune
    from models.zoo.tuning_checkpoint import Step

    try:
        texts = text_data.read_texts(options.data, options.prose)
        tuning, measured = (
            language_calibration.split_text(texts)
            if options.held_out is None
            else ("\n".join(texts), "\n".join(text_data.read_texts(options.held_out, options.prose)))
        )
        place = split_datatype(options.model)[0]
        model = language_family.load(f"{place}:bf16", calibrations)
        if not model.calibration:
            fail(f"{place} has no profile, whose gates could be tuned: run sluice calibrate {place} first")
        options.make_folders()
        seed = options.seed
        recipe = TuningRecipe(seed=seed) if options.steps is None else TuningRecipe(steps=options.steps, seed=seed)
        read = windows(model.encode(tuning), MOST_WINDOWS)
        torch.set_num_threads(1)
        with step_progress() as bar:
            tasks = [bar.add_task(phase, total=None) for phase in ("tuning", "measuring")]

            def report(step: Step) -> None:
                described = f"tuning, divergence {step.divergence:.4f}"
                bar.update(tasks[0], total=step.steps, completed=step.number, description=described)

            checkpoint = options.checkpoint(model.profile.model)
            weights = Tensors(weights_path(model.folder))
            tuned = tune(model, weights, read, recipe, report, checkpoint)
            profile, calibration, better = language_calibration.better_of(
                model, tuned, measured, lambda done: bar.update(tasks[1], total=100, completed=100 * done)
            )
        path = options.output / f"{profile.model}.profile.json"
        save_calibration(calibration, language_family.calibration_beside(path))
        profile.save(path)
    except (UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    said = "the tuned one is better and is kept" if better else "it is not better for tuning, and stays as it was"
    Console(stderr=True).print(f"{profile.model}: {said}")
    print_profile(profile, path, options.json)
