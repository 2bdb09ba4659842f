"""Settings of a portal: one TOML file, overridden by `PERIMETER_PORTAL_<KEY>`.

Every key is documented in `docs/examples/portal.toml`; unknown keys are refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from review_portal.errors import ConfigInvalid

ENVIRONMENT_PREFIX = "PERIMETER_PORTAL_"


class PortalConfig(BaseModel):
    """All settings of a portal. Durations carry their unit last; 0 as a port means a free one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Path("portal")
    site_name: str = ""

    web_host: str = "127.0.0.1"
    web_port: int = Field(8080, ge=0, le=65535)
    web_tls: Literal["off", "enrolled", "files"] = "off"
    web_certificate: Path | None = None
    web_key: Path | None = None

    intake_host: str = "0.0.0.0"  # noqa: S104  devices of the site call from other machines
    intake_port: int = Field(8443, ge=0, le=65535)
    intake_threads: int = Field(4, ge=1, le=64)
    content_bytes_max: int = Field(8 << 20, ge=1, le=8 << 20)
    mask_policy_versions: tuple[str, ...] = ("perimeter-masking-1",)

    coordinator_poll_seconds: float = Field(5.0, gt=0, le=3600)
    outcome_delay_seconds: float = Field(10.0, ge=0, le=3600)
    report_seconds: float = Field(60.0, gt=0, le=86400)

    lease_seconds: float = Field(600.0, ge=10, le=28800)
    session_idle_minutes: float = Field(30.0, gt=0, le=1440)
    session_hours: float = Field(12.0, gt=0, le=168)
    login_per_minute: int = Field(5, ge=1, le=1000)
    login_per_address_per_minute: int = Field(30, ge=1, le=10000)
    lockout_after: int = Field(10, ge=3, le=1000)
    lockout_minutes: float = Field(15.0, gt=0, le=1440)
    locale: Literal["en", "de"] = "en"
    key_store: Literal["file", "keyring"] = "file"
    retention_days: int = Field(0, ge=0, le=36500)

    def folder_of(self, name: str) -> Path:
        """Returns a folder below the portal's own."""
        return self.folder / name


def load_config(path: Path | None, environment: Mapping[str, str]) -> PortalConfig:
    """Reads settings. Paths in the file count from the file's own folder.

    Raises:
        ConfigInvalid: The file is missing or no TOML, or a key is unknown or out of range.
    """
    keys: dict[str, Any] = {}
    if path is not None:
        try:
            keys = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"cannot read settings from {path}: {error}") from None
        for key in ("folder", "web_certificate", "web_key"):
            if isinstance(keys.get(key), str):
                keys[key] = path.parent / keys[key]
    return parse_config(keys, environment)


def parse_config(keys: Mapping[str, Any], environment: Mapping[str, str]) -> PortalConfig:
    """Builds settings from decoded TOML and the environment.

    Raises:
        ConfigInvalid: A key is unknown or out of range.

    >>> parse_config({}, {"PERIMETER_PORTAL_WEB_PORT": "0"}).web_port
    0
    """
    merged = dict(keys)
    for name, value in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name != f"{ENVIRONMENT_PREFIX}PASSWORD":
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
            merged[key] = _listed(value) if key == "mask_policy_versions" else value
    try:
        config = PortalConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigInvalid(_sentence(error)) from None
    if config.web_tls == "files" and not (config.web_certificate and config.web_key):
        raise ConfigInvalid('web_tls = "files" needs web_certificate and web_key')
    return config


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; docs/examples/portal.toml lists all of them"
    return f"setting {key!r}: {first['msg']}"
