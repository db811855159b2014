"""What no test of the code sees: the image, the compose file, the provisioning, the pinned versions."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings
from tests.service.telemetry.test_metrics import CONTRACT, OF_LANGUAGE_MODELS

ROOT = Path(__file__).parent.parent
TELEMETRY = ROOT / "service" / "telemetry"
DASHBOARDS = sorted((TELEMETRY / "grafana" / "dashboards").glob("*.json"))


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_compose_mounts_what_is_there():
    services = load_yaml(ROOT / "compose.yaml")["services"]
    assert set(services) == {"sluice", "prometheus", "grafana"}
    named = load_yaml(ROOT / "compose.yaml")["volumes"]
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in named, f"{name}: {mount}"
        for dependency in service.get("depends_on", []):
            assert dependency in services
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_compose_gives_the_server_settings_that_exist():
    for name in load_yaml(ROOT / "compose.yaml")["services"]["sluice"]["environment"]:
        assert name.removeprefix("SLUICE_").lower() in Settings.model_fields


def test_prometheus_scrapes_the_server():
    services = load_yaml(ROOT / "compose.yaml")["services"]
    job = load_yaml(TELEMETRY / "prometheus" / "prometheus.yml")["scrape_configs"][0]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert host in services
    assert services[host]["ports"][0].endswith(f":{port}")


def test_grafana_finds_its_data_source_and_dashboards():
    provisioning = TELEMETRY / "grafana" / "provisioning"
    source = load_yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    folder = load_yaml(provisioning / "dashboards" / "sluice.yaml")["providers"][0]["options"]["path"]
    mounts = load_yaml(ROOT / "compose.yaml")["services"]["grafana"]["volumes"]
    assert any(mount.split(":")[1] == folder for mount in mounts)
    home = load_yaml(ROOT / "compose.yaml")["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert Path(home).name in {dashboard.name for dashboard in DASHBOARDS}


def test_the_image_copies_what_is_there():
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    ignored = (ROOT / ".dockerignore").read_text().split()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert copies
    for *sources, _ in copies:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source not in ignored
    build = [Path(source).name for *sources, _ in copies for source in sources]
    assert set(project()["tool"]["scikit-build"]["wheel"]["packages"]) <= set(build)
    instructions = [line.split()[0] for line in lines if line and line[0].isupper()]
    assert "HEALTHCHECK" in instructions
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["sluice"]


def test_the_image_sets_settings_that_exist():
    for name in re.findall(r"\bSLUICE_(\w+)=", (ROOT / "Dockerfile").read_text().split("FROM")[-1]):
        assert name.lower() in Settings.model_fields


def test_every_requirement_is_pinned():
    pins = {}
    for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    metadata = project()
    extras = metadata["project"]["optional-dependencies"].values()
    wanted = [*metadata["project"]["dependencies"], *(item for extra in extras for item in extra)]
    for text in [*wanted, *metadata["build-system"]["requires"]]:
        requirement = Requirement(text)
        if requirement.name == metadata["project"]["name"]:
            continue
        assert canonicalize_name(requirement.name) in pins, requirement.name
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_the_documents_name_settings_and_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\bSLUICE_([A-Z_]+)", text):
        assert name.lower() in {*Settings.model_fields, "config", "url", "fashion_mnist", "require_kernels"}, name
    for name in re.findall(r"\bsluice_\w+", text):
        metrics = {*CONTRACT, *OF_LANGUAGE_MODELS}
        known = {metric.removesuffix("_bucket") for metric in metrics} | metrics
        assert name in known or name == "sluice_serve", name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)|`make (\w+)`", text, re.M):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target
