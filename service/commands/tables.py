"""Tables that commands print."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from models.gating.profile import Profile
from service.commands.output import print_json


def profile_table(profile: Profile) -> Table:
    """A profile's operating points, a row each."""
    table = Table("level", "fewer MACs", "skip rate", "accuracy", "agreement with dense", "lower bound")
    for point in profile.points:
        table.add_row(
            f"{point.level:.3f}",
            f"{1 / point.macs_ratio:.2f}×",
            f"{point.skip_rate:.1%}",
            "" if point.accuracy is None else f"{point.accuracy:.2%}",
            f"{point.agreement:.2%}",
            f"{point.agreement_lower:.2%}",
        )
    return table


def print_profile(profile: Profile, path: Path, json: bool) -> None:
    """A profile that was measured, and where it was written."""
    if json:
        print_json(profile.as_dict())
    else:
        Console().print(profile_table(profile))
        Console().print(f"profile: {path}", soft_wrap=True)
