"""Reads a campaign from the operator's TOML file; `docs/examples/campaign.toml` shows every key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coordinator.core.campaign import PASSED_ON, Campaign, CampaignState
from coordinator.core.layer_defaults import completed
from coordinator.core.records import CampaignRecord
from coordinator.errors import CampaignInvalid, StoreConflict
from coordinator.store import Store

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATIONS = {
    "grant_lifetime": "grant_lifetime_seconds",
    "pool_timeout": "pool_timeout_seconds",
    "label_timeout": "label_timeout_seconds",
    "canary_timeout": "canary_timeout_seconds",
}


def seconds_of(value: object, key: str) -> int:
    """Returns the seconds of a duration: a whole number, or text such as `90s`, `15m`, `2h`, `7d`.

    Raises:
        CampaignInvalid: It is neither; the message names the key.

    >>> seconds_of("15m", "grant_lifetime")
    900
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value[-1:] in _UNITS and value[:-1].isdigit():
        return int(value[:-1]) * _UNITS[value[-1]]
    raise CampaignInvalid(f"{key} must be a duration such as 90s, 15m, 2h or 7d")


def read_campaign_file(path: Path) -> Campaign:
    """Reads and checks a campaign file.

    Raises:
        CampaignInvalid: The file cannot be read, or a key is unknown, missing or out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CampaignInvalid(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CampaignInvalid(f"{path} is no TOML file: {error}") from None
    return campaign_of(values)


def campaign_of(values: Mapping[str, Any]) -> Campaign:
    """Returns the campaign that a decoded file describes.

    `classes` is a list of names, or a table from name to guideline in the order of the file;
    durations may be written with a unit; every other key is one of `Campaign`. What goes with a
    layer that sites learn without labels is filled in where the file does not name it, once for
    all, so that a later version of this table changes no campaign.

    Raises:
        CampaignInvalid: A key is unknown, missing or out of range.
    """
    settings = dict(values)
    classes = settings.get("classes")
    if isinstance(classes, Mapping):
        settings["classes"] = list(classes)
        settings["class_guidelines"] = {name: text for name, text in classes.items() if text}
    for short, full in _DURATIONS.items():
        if short in settings:
            settings[full] = seconds_of(settings.pop(short), short)
    for key in ("classes", "sites"):
        listed = settings.get(key)
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise CampaignInvalid(f"{key} must be a list of names")
    for key in PASSED_ON:
        if not isinstance(settings.get(key, {}), Mapping):
            raise CampaignInvalid(f"{key} must be a table")
    if settings.get("family", "") in ("", settings.get("kind")):
        given = (settings.get(table, {}) for table in PASSED_ON)
        settings |= dict(zip(PASSED_ON, completed(str(settings.get("kind")), *given), strict=True))
    return Campaign.from_mapping(settings)


def create_campaign(
    store: Store, campaign: Campaign, *, now: int, entropy: Callable[[int], bytes]
) -> CampaignRecord:
    """Stores a new campaign; `serve` funds and drives it.

    Raises:
        CampaignInvalid: A campaign of that name exists.
    """
    record = CampaignRecord(
        campaign_id=entropy(16),
        name=campaign.name,
        state=CampaignState.ACTIVE,
        settings_json=json.dumps(campaign.to_mapping(), sort_keys=True),
        salt=entropy(16),
        created_at=now,
    )
    if store.find(CampaignRecord, name=campaign.name):
        raise CampaignInvalid(f"a campaign named {campaign.name!r} exists; choose another name")
    try:
        with store.transaction() as writer:
            writer.add(record)
            writer.note(now, "campaign created", f"{record.name} {record.campaign_id.hex()}")
    except StoreConflict:
        raise CampaignInvalid(f"a campaign named {campaign.name!r} exists") from None
    return record
