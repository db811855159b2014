"""What the commands print: results on standard output, JSON where a program reads it, errors on standard error."""

from time import monotonic
from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 30.0
"""Between two lines of progress in a log."""


def print_json(value: Any) -> None:
    """``value`` as indented JSON; NumPy arrays are lists."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())


def fail(message: str) -> NoReturn:
    """Ends the command with status 1 and a message, without a traceback."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


class LoggedProgress(Progress):
    """A progress display on stderr. Where that is no terminal, a line now and then, which a log can keep."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, console=Console(stderr=True))
        self._logged = monotonic()

    def update(self, task_id: TaskID, **changed: Any) -> None:
        super().update(task_id, **changed)
        self._log(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._log(task_id)

    def _log(self, task_id: TaskID) -> None:
        if self.console.is_terminal or monotonic() - self._logged < LOG_SECONDS:
            return
        self._logged = monotonic()
        task = self.tasks[self.task_ids.index(task_id)]
        total = f" of {task.total:g}" if task.total is not None else ""
        self.console.print(f"{task.description}: {task.completed:g}{total}", highlight=False, soft_wrap=True)


def share_progress() -> Progress:
    """For work of which a share is done."""
    return LoggedProgress(*Progress.get_default_columns())


def step_progress() -> Progress:
    """For work of many steps: how many are done, the time that they took, and what is left of it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return LoggedProgress(*columns, TimeRemainingColumn())
