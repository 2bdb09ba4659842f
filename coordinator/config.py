"""Settings of the coordinator: one TOML file, each key also as PERIMETER_COORDINATOR_<KEY>.

Every key with its meaning, unit and default stands in `docs/examples/coordinator.toml`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from coordinator.errors import ConfigInvalid

_ADDRESS = re.compile(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
Seconds = Annotated[int, Field(ge=1, le=366 * 86_400)]


class CoordinatorConfig(BaseSettings):
    """All settings; unknown keys are refused.

    Attributes:
        folder: Everything that the coordinator writes lies under it.
        database_url: Empty for SQLite inside `folder`; else `postgresql://user@host/name`.
        high_water_file: Empty for `high-water.json` in `folder`; better on another disk.
        trust_domain: Stands in every certificate; two installations must not share it.
        listen_address: host:port of the main listener (mutual TLS); port 0 picks a free one.
        enroll_address: host:port of the enrolment listener (server TLS only).
        metrics_address: host:port of `/metrics` and `/status`; loopback unless you know why.
        public_address: host:port that sites dial, when it differs from `listen_address`.
        public_enroll_address: host:port that new machines dial, when it differs.
        hosts: Names and IP addresses that the server certificates carry.
        federation_command: How to start `perimeter-federation`.
        superlink_address: host:port of Flower's SuperLink, for the federation.
        tick_seconds: Pause between two looks at the campaigns.
        certificate_lifetime_seconds: Life of a site's certificate.
        join_token_lifetime_seconds: Life of a join token.
        expiry_grace_seconds: How late an outcome may arrive after its grant's end.
        join_grace_seconds: How long a cycle waits for an agent that was told of a campaign to ask
            for its model; one that does not has no samples for it.
        training_attempts_max: How often a run that died is started again.
        message_bytes_max: Largest message taken on the main listener.
        concurrent_calls_max: Calls served at once on each listener; streams count.
        log_level: debug, info, warning or error.
    """

    model_config = SettingsConfigDict(
        env_prefix="PERIMETER_COORDINATOR_", extra="forbid", frozen=True
    )

    folder: Path = Path("central")
    database_url: str = ""
    high_water_file: str = ""
    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,100}$")] = "perimeter.local"
    listen_address: str = "127.0.0.1:7443"
    enroll_address: str = "127.0.0.1:7444"
    metrics_address: str = "127.0.0.1:7445"
    public_address: str = ""
    public_enroll_address: str = ""
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    federation_command: tuple[str, ...] = ("perimeter-federation",)
    superlink_address: str = "127.0.0.1:8000"
    tick_seconds: Annotated[float, Field(ge=0.01, le=60)] = 0.5
    certificate_lifetime_seconds: Seconds = 86_400
    join_token_lifetime_seconds: Seconds = 900
    expiry_grace_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 60
    join_grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = 15
    training_attempts_max: Annotated[int, Field(ge=1, le=100)] = 5
    message_bytes_max: Annotated[int, Field(ge=1 << 16, le=1 << 26)] = 1 << 22
    concurrent_calls_max: Annotated[int, Field(ge=1, le=100_000)] = 4_000
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"

    @field_validator("listen_address", "enroll_address", "metrics_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError("must be host:port")
        return value

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        **sources: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Lets the environment win over the file."""
        return (sources["env_settings"], sources["init_settings"])

    @property
    def store_url(self) -> str:
        """URL of the database in use."""
        return self.database_url or f"sqlite:///{self.folder / 'coordinator.db'}"

    @property
    def high_water_path(self) -> Path:
        """File that outlives a restore of the database."""
        return Path(self.high_water_file or self.folder / "high-water.json")

    @property
    def identity_folder(self) -> Path:
        """Keys and certificates."""
        return self.folder / "identity"


def _read(path: Path) -> dict[str, Any]:
    """Returns a file's keys; relative paths among them start at the file's folder."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} is no TOML file: {error}") from None
    here = path.resolve().parent
    for key in ("folder", "high_water_file"):
        if isinstance(values.get(key), str) and values[key]:
            values[key] = str(here / values[key])
    return values


def load_config(path: Path | None, **overrides: Any) -> CoordinatorConfig:
    """Reads the settings.

    Args:
        path: A TOML file, or None for defaults and the environment alone.
        overrides: Values that win over the file; None means not given.

    Raises:
        ConfigInvalid: The file cannot be read, or a key is unknown or out of range.
    """
    values = {} if path is None else _read(path)
    values.update({k: v for k, v in overrides.items() if v is not None})
    try:
        return CoordinatorConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] == "extra_forbidden"
        sentence = "unknown key; see docs/examples/coordinator.toml" if unknown else first["msg"]
        raise ConfigInvalid(f"setting {key!r}: {sentence}") from None
