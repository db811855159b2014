"""What the commands print: results on standard output, JSON where a program reads it, errors on standard error."""

from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def print_json(value: Any) -> None:
    """``value`` as indented JSON; NumPy arrays are lists."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())


def fail(message: str) -> NoReturn:
    """Ends the command with status 1 and a message, without a traceback."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def step_progress() -> Progress:
    """For work of many steps, on stderr: how many are done, the time that they took, and what is left of it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
