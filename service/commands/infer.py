"""`sluice infer`: classify images, here in this process or on a running server."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from models.model import GateContext, InvalidInput, Model
from models.zoo import catalog
from service.commands.client import call
from service.commands.images import Images, UnreadableInput, read_images
from service.commands.options import Json, Name
from service.commands.output import fail, print_json
from service.protocol.v2_response import classify
from service.settings import load_settings

CLASSES = 3


@dataclass(frozen=True, slots=True)
class Source:
    """Which images of which file."""

    file: Path
    first: int
    count: int

    def read(self, shape: Sequence[int]) -> Images:
        """The images for an input of this shape, or the end of the command."""
        if len(shape) != 3:
            fail(
                f"the model's input has the shape {list(shape)}; `sluice infer` is for grey images, [-1, height, width]"
            )
        try:
            return read_images(self.file, shape[1], shape[2], self.first, self.count)
        except UnreadableInput as error:
            fail(str(error))


def infer(
    model: Name,
    file: Annotated[Path, typer.Argument(metavar="INPUT", help="A picture, a .npy array or an IDX file", exists=True)],
    first: Annotated[int, typer.Option(min=0, help="Number of the first image of an array or IDX file")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many images of it, as one request")] = 1,
    level: Annotated[float | None, typer.Option(min=0, max=1, help="Pin the level: 0 is the dense model")] = None,
    slo_ms: Annotated[float | None, typer.Option(help="Latency SLO of this request (with --url)")] = None,
    url: Annotated[str | None, typer.Option(envvar="SLUICE_URL", help="Ask this server; else run it here")] = None,
    json: Json = False,
) -> None:
    """Classify images and show what the gates skipped. Without --url no server is needed, and the level is 0."""
    source = Source(file, first, count)
    if url is not None:
        answer = _ask(url, model, source, {"level": level, "slo_ms": slo_ms})
    elif slo_ms is not None:
        fail("--slo-ms is for a server's controller: give --url too, or --level")
    else:
        answer = _run(model, source, level or 0.0)
    if json:
        print_json(answer)
    else:
        _print(answer)


def _run(name: str, source: Source, level: float) -> dict[str, Any]:
    try:
        model: Model = catalog.load(name, load_settings().calibrations)
    except (catalog.UnknownModel, catalog.MissingWeights, ValueError) as error:
        fail(str(error))
    scores = next((spec for spec in model.outputs if spec.labels), None)
    if scores is None:
        fail(f"{name} has no classes; `sluice infer` is for classifiers")
    inputs = {model.inputs[0].name: source.read(model.inputs[0].shape)}
    try:
        model.check(inputs)
    except InvalidInput as error:
        fail(str(error))
    # The first run pays for cold memory, which is not the model's time.
    model.run(inputs, GateContext(level))
    context = GateContext(level)
    started = time.perf_counter()
    outputs = model.run(inputs, context)
    milliseconds = (time.perf_counter() - started) * 1e3
    return {
        "model": name,
        "classes": _parsed(classify(outputs[scores.name], CLASSES, scores.labels, batched=True).tolist()),
        "parameters": {
            "level": level,
            "skip_rate": context.skip_rate,
            "macs_skipped": context.macs_skipped_ratio,
            "quality": model.profile.at(level).quality,
            "compute_ms": milliseconds,
        },
    }


def _ask(url: str, name: str, source: Source, options: dict[str, float | None]) -> dict[str, Any]:
    path = f"/v2/models/{quote(name, safe='')}"
    metadata = call("GET", url, path)
    spec = metadata["inputs"][0]
    scores = next((output for output in metadata["outputs"] if output["datatype"] == "FP32"), None)
    if scores is None:
        fail(f"{name} has no scores; `sluice infer` is for classifiers")
    images = source.read(spec["shape"])
    tensor = {"name": spec["name"], "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    body = {
        "parameters": {option: value for option, value in options.items() if value is not None},
        "inputs": [tensor],
        "outputs": [{"name": scores["name"], "parameters": {"classification": CLASSES}}],
    }
    answer = call("POST", url, f"{path}/infer", body=body)
    output = answer["outputs"][0]
    width = output["shape"][-1]
    rows = [output["data"][start : start + width] for start in range(0, len(output["data"]), width)]
    return {"model": name, "classes": _parsed(rows), "parameters": answer["parameters"]}


def _parsed(rows: Sequence[Sequence[str | bytes]]) -> list[list[dict[str, Any]]]:
    """The classification extension's "score:index:label" strings, taken apart."""
    parsed = []
    for row in rows:
        parts = [(item.decode() if isinstance(item, bytes) else item).split(":", 2) for item in row]
        parsed.append([{"label": part[2] if len(part) > 2 else part[1], "score": float(part[0])} for part in parts])
    return parsed


def _print(answer: dict[str, Any]) -> None:
    table = Table("image", *(["class", "score"] * CLASSES))
    for number, row in enumerate(answer["classes"]):
        table.add_row(str(number), *(cell for item in row for cell in (item["label"], f"{item['score']:.3f}")))
    parameters = answer["parameters"]
    console = Console()
    console.print(table)
    console.print(
        f"level {parameters['level']:.3f}, {parameters['skip_rate']:.1%} of the channels and "
        f"{parameters['macs_skipped']:.1%} of the multiply-accumulates skipped, "
        f"expected quality {parameters['quality']:.4f}, {parameters['compute_ms']:.2f} ms",
        highlight=False,
    )
