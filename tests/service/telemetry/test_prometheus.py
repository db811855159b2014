"""The recording rules and alerts, by Prometheus's own tool where that is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.service.telemetry.test_metrics import CONTRACT

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "service" / "telemetry" / "prometheus"
RULE_TESTS = sorted((Path(__file__).parent / "prometheus").glob("*.yml"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is NOT here, so the rules go untested: apt-get install prometheus",
)


def rules(file: str) -> list[dict]:
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_tests() -> list[dict]:
    documents = [yaml.safe_load(path.read_text()) for path in RULE_TESTS]
    return [check for doc in documents for test in doc["tests"] for check in test.get("alert_rule_test", [])]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_is_valid():
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules(path):
    promtool("test", "rules", str(path))


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules("alerts.yml")])
def test_each_alert_is_shown_firing_and_not_firing(alert):
    fires = {bool(check["exp_alerts"]) for check in alert_tests() if check["alertname"] == alert}
    assert fires == {True, False}


def test_rules_read_metrics_that_exist():
    recorded = {rule["record"] for rule in rules("recording.yml")}
    for rule in [*rules("recording.yml"), *rules("alerts.yml")]:
        names = set(re.findall(r"\b(?:job_\w+:)?sluice_[\w:]+", rule["expr"]))
        assert names or "up{" in rule["expr"], rule
        assert names <= recorded | set(CONTRACT), rule


def test_every_alert_says_what_to_do_and_how_soon():
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "description"}
