"""Writes the dashboards' JSON into `service/telemetry/grafana/dashboards`, or into the folder that is named."""

import sys
from pathlib import Path

from service.telemetry.dashboards.rendering import rendered

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"


def main() -> None:
    """Writes the files and prints their names."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, text in rendered().items():
        (folder / name).write_text(text)
        print(folder / name)


if __name__ == "__main__":
    main()
