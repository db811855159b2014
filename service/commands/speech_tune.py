"""`sluice tune` for models of speech."""

from pathlib import Path

from rich.console import Console

from models.zoo import speech_calibration, speech_data, speech_family
from models.zoo.audio import COMMAND
from models.zoo.family import DATATYPES, UnknownModel, split_datatype
from models.zoo.whisper_files import read_whisper
from models.zoo.whisper_words import Calibrated
from service.commands.output import fail, step_progress
from service.commands.tables import print_profile
from service.commands.tuning import TuningOptions


def tune_speech(options: TuningOptions, calibrations: Path) -> None:
    """Tunes what stands for what is skipped, and writes it with its profile where that is the better of the two on the
    recordings that are kept from tuning."""
    import torch

    from models.zoo.speech_tuning import TuningRecipe, tune
    from models.zoo.tuning_checkpoint import Step

    try:
        place, datatype = split_datatype(options.model)
        clips = speech_data.of_folder(options.data)
        tuning, measured = (
            speech_data.split(clips)[:2]
            if options.held_out is None
            else (clips, speech_data.of_folder(options.held_out))
        )
        found = speech_family.profile_path(place, calibrations)
        if found is None:
            fail(f"{place} has no profile, whose gates could be tuned: run sluice calibrate {place} first")
        model = speech_family.load(place, calibrations)
        calibrated = Calibrated.load(speech_family.calibrated_beside(found))
        options.make_folders()
        seed = options.seed
        recipe = TuningRecipe(seed=seed) if options.steps is None else TuningRecipe(steps=options.steps, seed=seed)
        torch.set_num_threads(1)
        with step_progress() as bar:
            tasks = [bar.add_task(phase, total=None) for phase in ("hearing", "tuning", "measuring")]
            heard = []
            for number, clip in enumerate(tuning, 1):
                example = speech_calibration.listen(model, clip.audio)
                heard += [] if example is None else [example]
                bar.update(tasks[0], total=len(tuning), completed=number)

            def report(step: Step) -> None:
                described = f"tuning, divergence {step.divergence:.4f}"
                bar.update(tasks[1], total=step.steps, completed=step.number, description=described)

            checkpoint = options.checkpoint(model.profile.model)
            tensors = read_whisper(model.folder).tensors
            tuned = tune(model, tensors, calibrated, heard, recipe, report, checkpoint)
            profile, calibrated, better = speech_calibration.better_of(
                model,
                calibrated,
                tuned,
                measured,
                lambda done: bar.update(tasks[2], total=100, completed=100 * done),
                datatype=datatype or DATATYPES[0],
            )
        path = options.output / f"{profile.model}.profile.json"
        calibrated.save(speech_family.calibrated_beside(path))
        profile.save(path)
    except ModuleNotFoundError as missing:
        fail(f"{missing}: {COMMAND}")
    except (UnknownModel, OSError, ValueError) as error:
        fail(str(error))
    said = "the tuned one is better and is kept" if better else "it is not better for tuning, and stays as it was"
    Console(stderr=True).print(f"{profile.model}: {said}")
    print_profile(profile, path, options.json)
