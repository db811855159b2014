"""`sluice tune` for language models."""

from pathlib import Path

from rich.console import Console

from models.zoo import language_calibration, language_family, text_data
from models.zoo.family import UnknownModel, split_datatype
from models.zoo.folder import Tensors, weights_path
from models.zoo.language_gates import save_calibration, windows
from service.commands.output import fail, step_progress
from service.commands.tables import print_profile
from service.settings import SettingsError, load_settings

MOST_WINDOWS = 4000


def tune_language(
    name: str,
    data: Path,
    held_out: Path | None,
    prose: bool,
    steps: int | None,
    output: Path | None,
    work: Path | None,
    seed: int,
    json: bool,
) -> None:
    """Tunes what stands for skipped channels, and writes it with its profile where that is the better of the two on the
    texts that are kept from tuning."""
    import torch

    from models.zoo.language_tuning import TuningRecipe, tune
    from models.zoo.tuning_checkpoint import Step

    try:
        texts = text_data.read_texts(data, prose)
        tuning, measured = (
            language_calibration.split_text(texts)
            if held_out is None
            else ("\n".join(texts), "\n".join(text_data.read_texts(held_out, prose)))
        )
        settings = load_settings()
        place = split_datatype(name)[0]
        model = language_family.load(f"{place}:bf16", settings.calibrations)
        if not model.calibration:
            fail(f"{place} has no profile, whose gates could be tuned: run sluice calibrate {place} first")
        folder, checkpoints = output or settings.calibrations, work or settings.home / "training"
        for made in (folder, checkpoints):
            made.mkdir(parents=True, exist_ok=True)
        recipe = TuningRecipe(seed=seed) if steps is None else TuningRecipe(steps=steps, seed=seed)
        read = windows(model.encode(tuning), MOST_WINDOWS)
        torch.set_num_threads(1)
        with step_progress() as bar:
            tasks = [bar.add_task(phase, total=None) for phase in ("tuning", "measuring")]

            def report(step: Step) -> None:
                described = f"tuning, divergence {step.divergence:.4f}"
                bar.update(tasks[0], total=step.steps, completed=step.number, description=described)

            checkpoint = checkpoints / f"{model.profile.model}-tuning-{seed}.pt"
            weights = Tensors(weights_path(model.folder))
            tuned = tune(model, weights, read, recipe, report, checkpoint)
            profile, calibration, better = language_calibration.better_of(
                model, tuned, measured, lambda done: bar.update(tasks[1], total=100, completed=100 * done)
            )
        path = folder / f"{profile.model}.profile.json"
        save_calibration(calibration, language_family.calibration_beside(path))
        profile.save(path)
    except (SettingsError, UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    said = "the tuned one is better and is kept" if better else "it is not better for tuning, and stays as it was"
    Console(stderr=True).print(f"{profile.model}: {said}")
    print_profile(profile, path, json)
