"""From dashboards to the text of the files that Grafana reads."""

import json

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from service.telemetry.dashboards.model import model
from service.telemetry.dashboards.overview import overview


def rendered() -> dict[str, str]:
    """The JSON of each dashboard, by the name of its file."""
    return {"sluice.json": _json(overview()), "sluice-model.json": _json(model())}


def _json(dashboard: Dashboard) -> str:
    built = dashboard.build()
    # Links and annotations name a panel by its id; the order on the page gives it.
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
