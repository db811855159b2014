from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SLUICE_{name.upper()}", raising=False)


def write(folder: Path, text: str) -> Path:
    file = folder / "sluice.toml"
    file.write_text(text)
    return file


def test_defaults():
    settings = load_settings()
    assert (settings.host, settings.port, settings.models) == ("127.0.0.1", 8000, ("fashion",))
    assert settings.max_body_bytes == 32 * 1024 * 1024
    assert settings.admin_token is None
    assert settings.home.is_absolute()
    assert settings.database.parent == settings.calibrations.parent == settings.home


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, "port = 1\nhost = 'file'\nexecutors = 1\nmodels = ['a', 'b']\n")
    monkeypatch.setenv("SLUICE_PORT", "2")
    monkeypatch.setenv("SLUICE_HOST", "environment")
    settings = load_settings(file, port=3, host=None)
    assert (settings.port, settings.host, settings.executors) == (3, "environment", 1)
    assert settings.models == ("a", "b")


def test_models_in_the_environment_have_commas_between(monkeypatch):
    monkeypatch.setenv("SLUICE_MODELS", "fashion, other,")
    assert load_settings().models == ("fashion", "other")


def test_the_token_does_not_show(monkeypatch):
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", "correct horse")
    settings = load_settings()
    assert "correct" not in repr(settings)
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == "correct horse"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 70000", r"port \(SLUICE_PORT\).*70000"),
        ("slo_latency_ms = 0", "slo_latency_ms"),
        ("slo_latency_ms = nan", "slo_latency_ms"),
        ("slo_latency_ms = inf", "slo_latency_ms"),
        ("slo_percentile = 101", "slo_percentile"),
        ("quality_floor = 1.5", "quality_floor"),
        ("log_level = 'loud'", "log_level"),
        ("prot = 1", "prot: there is no such setting"),
        ("port = ", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_said_with_its_name(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, text))


def test_all_problems_are_said_at_once(tmp_path):
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, "port = -1\nexecutors = -1\n"))
    assert len(str(error.value).splitlines()) == 2


def test_a_token_that_does_not_fit_is_not_printed(tmp_path):
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, "admin_token = 424242"))
    assert "admin_token" in str(error.value)
    assert "424242" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.toml"):
        load_settings(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("form", "asked", "logged"),
    [("text", None, False), ("json", None, True), ("text", True, True), ("json", False, False)],
)
def test_json_logs_requests_unless_told_not_to(form, asked, logged):
    assert load_settings(log_format=form, access_log=asked).logs_requests is logged
