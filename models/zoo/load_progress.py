"""What is shown while a model is loaded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def load_progress(name: str) -> Iterator[Callable[[float], None]]:
    """Is to be told the share done, 0 to 1, and shows it on stderr where that is a terminal, until it is left."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"loading {name}", total=1.0)

        def report(done: float) -> None:
            bar.update(task, completed=done)

        yield report
