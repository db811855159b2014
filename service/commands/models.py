"""`sluice models`: what can be hosted."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from models.zoo.catalog import available
from service.commands.options import Json
from service.commands.output import fail, print_json
from service.settings import SettingsError, load_settings


def models(json: Json = False) -> None:
    """List the models that can be hosted, which are installed, and how to install the others."""
    try:
        entries = available(load_settings().calibrations)
    except SettingsError as error:
        fail(str(error))
    if json:
        print_json([{**asdict(entry), "installed": entry.installed} for entry in entries])
        return
    table = Table("model", "installed", "what it is")
    for entry in entries:
        table.add_row(entry.name, "yes" if entry.installed else "no", entry.summary)
    Console().print(table)
    for entry in entries:
        if not entry.installed:
            Console().print(f"{entry.name}: {entry.missing}", markup=False)
