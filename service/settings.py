"""The server's settings: command-line flags, then ``SLUICE_*`` variables, then a TOML file, then the defaults.

>>> load_settings(port=9000).port
9000
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.control.slo import LONGEST_LATENCY_MS

PREFIX = "SLUICE_"


class SettingsError(ValueError):
    """Settings that cannot be used; the message has a line for each and names where it came from."""


class Settings(BaseSettings):
    """Everything that an operator can set: named as here in the TOML file, ``SLUICE_PORT`` and so on outside."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Field(Path("~/.cache/sluice"), description="Folder for what is kept: SLOs and calibrations")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 is every interface")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("fashion",), description="Models to host, with commas between"
    )
    executors: int = Field(0, ge=0, le=256, description="Models that run at once; 0: one a core, or to `threads`")
    threads: int = Field(1, ge=1, le=256, description="Threads of each, which share the larger products of its run")
    queue_limit: int = Field(1024, ge=1, description="Requests of one model that may wait; more are refused")
    generations: int = Field(16, ge=1, le=1024, description="Generations of one language model that run at once")
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Largest body, as sent and once decompressed")

    slo_latency_ms: float = Field(
        50.0, gt=0, le=LONGEST_LATENCY_MS, description="Latency SLO of a model that was given none"
    )
    slo_first_token_ms: float = Field(
        2000.0, gt=0, le=LONGEST_LATENCY_MS, description="Time to the first token of a language model without an SLO"
    )
    slo_token_ms: float = Field(
        100.0, gt=0, le=LONGEST_LATENCY_MS, description="Mean time of each further token, likewise"
    )
    slo_speech_ms: float = Field(
        1000.0, gt=0, le=LONGEST_LATENCY_MS, description="Latency SLO of a model of speech without one, a request"
    )
    slo_audio_second_ms: float = Field(
        100.0, ge=0, le=LONGEST_LATENCY_MS, description="More of it, for each second of a request's audio"
    )
    slo_percentile: float = Field(99.0, gt=0, le=99.99, description="Per cent of requests that are to be within it")
    quality_floor: float = Field(0.95, ge=0, le=1, description="Lowest quality of a model that was given none")
    shed: bool = Field(True, description="Refuse at once what the quality floor's level cannot finish in time")
    shadow_share: float = Field(0.01, ge=0, le=1, description="Share of gated requests that are re-run dense when idle")

    console: bool = Field(True, description="Serve the console at /")

    admin_token: SecretStr | None = Field(None, description="For administrative calls; without one, loopback-only")
    grace_seconds: float = Field(10.0, ge=0, le=3600, description="How long a stopping server waits for its requests")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or a JSON object each")
    access_log: bool | None = Field(None, description="Log each request; where not set, with log_format json only")
    tracing: bool = Field(False, description="Send OpenTelemetry spans by OTLP/HTTP; OTEL_* variables say where to")

    @field_validator("models", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("home")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser()

    @property
    def logs_requests(self) -> bool:
        """Whether each request is logged."""
        return self.log_format == "json" if self.access_log is None else self.access_log

    @property
    def database(self) -> Path:
        """The SQLite file that keeps the SLOs."""
        return self.home / "sluice.db"

    @property
    def calibrations(self) -> Path:
        """The folder of the user's own calibrations, which go before the packaged ones."""
        return self.home / "calibrations"


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """The settings in force; ``flags`` are those of the command line, None where one was not given.

    Raises SettingsError for a file that is missing or no TOML, for unknown names and for values out of range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if config is not None and not config.is_file():
        raise SettingsError(f"there is no settings file {config}")

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = [TomlConfigSettingsSource(settings_cls, config)] if config is not None else []
            return (init_settings, env_settings, *file)

    try:
        return WithFile(**given)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{config} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(problem) for problem in error.errors())) from None


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    # A token that does not fit is still a secret.
    got = "" if name == "admin_token" else f", got {problem['input']!r}"
    return f"{name} ({PREFIX}{name.split('.')[0].upper()}): {message}{got}"
