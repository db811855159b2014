"""`sluice slo`: read or change a model's SLO on a running server."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from service.commands.client import DEFAULT_URL, call
from service.commands.options import Json, Name
from service.commands.output import print_json


def slo(
    model: Name,
    latency_ms: Annotated[float | None, typer.Option(help="Latency in milliseconds")] = None,
    audio_second_ms: Annotated[
        float | None, typer.Option(help="Of a model of speech: milliseconds more for each second of audio")
    ] = None,
    first_token_ms: Annotated[
        float | None, typer.Option(help="Of a language model: milliseconds to the first token")
    ] = None,
    token_ms: Annotated[
        float | None, typer.Option(help="Of a language model: milliseconds of each further token, in the mean")
    ] = None,
    percentile: Annotated[float | None, typer.Option(help="Per cent of requests that are to be within it")] = None,
    quality_floor: Annotated[float | None, typer.Option(help="Lowest quality that is acceptable, 0 to 1")] = None,
    shed: Annotated[bool | None, typer.Option("--shed/--no-shed", help="Refuse what cannot be in time")] = None,
    url: Annotated[str, typer.Option(envvar="SLUICE_URL", help="The server")] = DEFAULT_URL,
    token: Annotated[str | None, typer.Option(envvar="SLUICE_ADMIN_TOKEN", help="The server's admin token")] = None,
    json: Json = False,
) -> None:
    """Show a model's SLO, or change what is given. It holds from the next request on, and over a restart."""
    options = {
        "latency_ms": latency_ms,
        "audio_second_ms": audio_second_ms,
        "first_token_ms": first_token_ms,
        "token_ms": token_ms,
        "percentile": percentile,
        "quality_floor": quality_floor,
        "shed": shed,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    path = f"/v2/models/{quote(model, safe='')}/slo"
    answer = call("PATCH", url, path, token, changes) if changes else call("GET", url, path)
    if json:
        print_json(answer)
    else:
        Console().print(_table(model, answer))


def _table(model: str, answer: dict[str, Any]) -> Table:
    table = Table("SLO", model, show_header=True)
    times = {
        "latency_ms": "latency",
        "audio_second_ms": "and a second of audio",
        "first_token_ms": "first token",
        "token_ms": "each further token",
    }
    for name, title in times.items():
        if name in answer:
            table.add_row(title, f"{answer[name]:g} ms")
    table.add_row("percentile", f"{answer['percentile']:g} %")
    table.add_row("quality floor", f"{answer['quality_floor']:g}")
    table.add_row("shed", "yes" if answer["shed"] else "no")
    return table
