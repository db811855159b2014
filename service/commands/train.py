"""`sluice train`: from images to weights, resumable."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.zoo.fashion_data import MissingData
from service.commands.options import Data, Json, Name, require_fashion, require_torch
from service.commands.output import fail, print_json, step_progress
from service.settings import SettingsError, load_settings

VARIANTS = ("gated", "plain", "static")


def train(
    model: Name = "fashion",
    variant: Annotated[
        str,
        typer.Option(help="gated: the served one; plain: without gates; static: the same channels for every image"),
    ] = "gated",
    data: Data = None,
    work: Annotated[Path | None, typer.Option(help="Folder of checkpoints; SLUICE_HOME/training by default")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random choices")] = 0,
    json: Json = False,
) -> None:
    """Train a model with gates. An interrupted training goes on from its last epoch when started again.

    The plain network comes first: it starts the gated one and teaches it. Calibrate the result with `sluice calibrate`.
    """
    require_fashion(model)
    require_torch("training")
    if variant not in VARIANTS:
        fail(f"--variant must be one of {', '.join(VARIANTS)}; got {variant}")
    from models.gating.training import Progress as Step
    from models.zoo import fashion_training

    try:
        folder = work or load_settings().home / "training"
        folder.mkdir(parents=True, exist_ok=True)
        with step_progress() as bar:
            task = bar.add_task("starting", total=None)

            def report(step: Step) -> None:
                total, done = step.steps * step.epochs, step.steps * (step.epoch - 1) + step.step
                described = f"{step.phase}, epoch {step.epoch}/{step.epochs}, loss {step.loss:.3f}"
                bar.update(task, total=total, completed=done, description=described)

            weights = fashion_training.train(variant, data, folder, report, seed=seed)
    except (SettingsError, MissingData, OSError, ValueError) as error:
        fail(str(error))
    if json:
        print_json({"model": model, "variant": variant, "weights": str(weights)})
    else:
        Console().print(f"weights: {weights}\nnext: sluice calibrate {model} --weights {weights}", soft_wrap=True)
