"""`perimeter-portal campaign list|set`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import Connection

from review_portal.commands.settings import config_of
from review_portal.errors import ConfigInvalid
from review_portal.label_store import LabelStore
from review_portal.store import audit
from review_portal.store.campaigns import CampaignSettings, put_settings, settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("list", "set"))
    parser.add_argument("campaign", nargs="?", default="")
    keys = ", ".join(asdict(CampaignSettings()))
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help=f"keys: {keys}")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action."""
    with LabelStore.open(config_of(arguments).folder) as store:
        if arguments.action == "list":
            for campaign in store.campaigns():
                print(f"{campaign.name}\t{campaign.campaign_id.hex()}\t{campaign.state}")
            return 0
        campaign = store.campaign(arguments.campaign)

        def work(connection: Connection) -> CampaignSettings:
            changed = settings_of(connection, campaign.campaign_id)
            for change in arguments.changes:
                changed = _changed(changed, change)
            put_settings(connection, campaign.campaign_id, changed)
            event = audit.Event("command", "campaign.set", campaign.name, asdict(changed))
            audit.append(connection, time.time(), event)
            return changed

        for key, value in asdict(store.database.write(work)).items():
            print(f"{key} = {value}")
    return 0


def _changed(settings: CampaignSettings, change: str) -> CampaignSettings:
    key, _, value = change.partition("=")
    known = {field.name: getattr(CampaignSettings(), field.name) for field in fields(settings)}
    if key not in known:
        raise ConfigInvalid(f"unknown key {key!r}; known: {', '.join(known)}")
    changes: dict[str, Any] = {key: _typed(known[key], value, key)}
    return replace(settings, **changes)


def _typed(example: object, value: str, key: str) -> object:
    try:
        if isinstance(example, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(example)(value)  # type: ignore[call-arg]
    except (KeyError, ValueError):
        raise ConfigInvalid(f"{key} cannot be {value!r}") from None
