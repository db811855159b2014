"""Tables that commands print."""

from rich.table import Table

from models.gating.profile import Profile


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
