"""Where the charting library lies: Vega, with its grammar Vega-Lite, as a wheel carries it. It is an extra."""

from importlib.util import find_spec
from pathlib import Path

SCRIPTS = ("vega5.js", "vega-lite5.js", "vega-embed6.js")


def vega_folder() -> Path | None:
    """The folder of `SCRIPTS`; None where the extra `console` is not installed."""
    found = find_spec("js_lib_vega_embed")
    if found is None or found.submodule_search_locations is None:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "static" / "js_lib_vega_embed"
    return folder if all((folder / script).is_file() for script in SCRIPTS) else None
