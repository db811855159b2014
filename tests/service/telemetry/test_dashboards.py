"""The committed dashboards: that the code makes them, and the rules of Grafana's dashboard linter."""

import json
import re

import pytest
from grafana_foundation_sdk.models import units

from service.telemetry.dashboards.__main__ import FOLDER
from service.telemetry.dashboards.rendering import rendered
from tests.service.telemetry.test_metrics import CONTRACT, OF_LANGUAGE_MODELS
from tests.service.telemetry.test_prometheus import rules

DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = re.compile(r"(?P<before>\w*\(?)\b(?P<name>[a-z_]+(?::\w+)*)\{(?P<matchers>[^}]*)\}(?P<range>\[[^\]]*\])?")
SHOWN = CONTRACT | OF_LANGUAGE_MODELS
METRIC = re.compile(r"\b(?:sluice|process)_\w+")
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
every_panel = pytest.mark.parametrize("panel", PANELS)


def variables(dashboard: dict) -> dict[str, dict]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def test_the_committed_files_are_what_the_code_makes():
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == rendered(), "run: python -m service.telemetry.dashboards"


@every_dashboard
def test_dashboards_are_not_edited_in_the_browser(dashboard):
    assert dashboard["editable"] is False


@every_dashboard
def test_the_data_source_is_a_variable(dashboard):
    source = variables(dashboard)["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


@every_dashboard
@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_are_variables(dashboard, name):
    variable = variables(dashboard)[name]
    assert variable["type"] == "query"
    assert variable["label"] == name.capitalize()
    assert variable["datasource"] == SOURCE
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".+"


@every_dashboard
def test_variables_follow_the_time_range(dashboard):
    assert all(variable["refresh"] == 2 for variable in dashboard["templating"]["list"] if variable["type"] == "query")


@every_dashboard
def test_changes_of_the_slo_are_annotated(dashboard):
    (annotation,) = dashboard["annotations"]["list"]
    assert annotation["datasource"] == SOURCE
    assert annotation["enable"] is True
    assert annotation["target"]["expr"] == annotation["expr"]
    selectors = list(SELECTOR.finditer(annotation["expr"]))
    assert {found["before"] for found in selectors} == {"changes("}
    names = {found["name"] for found in selectors}
    assert names == {"sluice_slo_latency_seconds", "sluice_slo_percentile_ratio", "sluice_quality_floor_ratio"}


@every_dashboard
def test_panels_lie_beside_each_other(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@every_panel
def test_panels_say_what_they_show(panel):
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@every_panel
def test_panels_ask_the_data_source_of_the_variable(panel):
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    assert all(target["datasource"] == SOURCE for target in panel["targets"])


@every_panel
def test_every_selector_follows_the_variables(panel):
    for target in panel["targets"]:
        selectors = list(SELECTOR.finditer(target["expr"]))
        assert len(selectors) == len(METRIC.findall(target["expr"])) > 0
        for found in selectors:
            assert 'job=~"$job"' in found["matchers"]
            assert 'instance=~"$instance"' in found["matchers"]


@every_panel
def test_counters_are_rates_over_the_rate_interval(panel):
    for target in panel["targets"]:
        for found in SELECTOR.finditer(target["expr"]):
            counter = ":" not in found["name"] and found["name"].endswith(("_total", "_bucket", "_sum", "_count"))
            assert (found["before"] in ("rate(", "increase(")) == counter, target["expr"]
            assert (found["range"] == "[$__rate_interval]") == counter, target["expr"]


@every_panel
def test_panels_show_series_that_exist(panel):
    known = set(SHOWN) | {rule["record"] for rule in rules("recording.yml")}
    known |= {name.replace("_bucket", end) for name in SHOWN for end in ("_sum", "_count")}
    for target in panel["targets"]:
        for found in SELECTOR.finditer(target["expr"]):
            assert found["name"] in known or found["name"].startswith("process_")


def test_every_metric_is_on_a_dashboard():
    shown = {found["name"] for panel in PANELS for found in SELECTOR.finditer(json.dumps(panel.values[0]["targets"]))}
    families = {name.removesuffix("_bucket") for name in SHOWN}
    assert {family for family in families if not any(name.startswith(family) for name in shown)} == set()
