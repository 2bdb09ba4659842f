"""`perimeter-portal schema list|map`: versions of a campaign's classes, and what became of each."""

from __future__ import annotations

import argparse
import time

from sqlalchemy import Connection

from review_portal.commands.settings import config_of
from review_portal.core.model import Campaign
from review_portal.errors import ConfigInvalid
from review_portal.label_store import LabelStore
from review_portal.store import audit, campaigns

GONE = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("list", "map"))
    parser.add_argument("campaign")
    parser.add_argument(
        "changes",
        nargs="*",
        metavar="OLD=NEW",
        help=f"class of the version before and what it is now; {GONE} where it went",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the mapping of every version, or says what classes of the version before are now."""
    with LabelStore.open(config_of(arguments).folder) as store:
        campaign = store.campaign(arguments.campaign)
        if arguments.action == "map":
            store.database.write(lambda c: _map(c, campaign, arguments.changes))
        _print(store.database.read(lambda c: campaigns.schema_versions(c, campaign.campaign_id)))
    return 0


def _map(connection: Connection, campaign: Campaign, changes: list[str]) -> None:
    versions = campaigns.schema_versions(connection, campaign.campaign_id)
    if len(versions) < 2 or not changes:
        raise ConfigInvalid("a mapping needs OLD=NEW and a version before the present one")
    before, present = versions[-2].classes, versions[-1]
    mapping = list(present.mapping)
    for change in changes:
        old, _, new = change.rpartition("=")
        if old not in before or new not in {*present.classes, GONE}:
            raise ConfigInvalid(
                f"{change!r} must name a class of version {versions[-2].version} "
                f"({', '.join(before)}) and one of version {present.version} "
                f"({', '.join(present.classes)}) or {GONE}"
            )
        mapping[before.index(old)] = None if new == GONE else present.classes.index(new)
    campaigns.put_mapping(connection, campaign.campaign_id, present.version, mapping)
    event = audit.Event(
        "command", "schema.mapped", campaign.name, {"version": present.version, "map": mapping}
    )
    audit.append(connection, time.time(), event)


def _print(versions: tuple[campaigns.SchemaVersion, ...]) -> None:
    before: tuple[str, ...] = ()
    for entry in versions:
        print(f"version {entry.version}: {', '.join(entry.classes)}")
        for old, now in zip(before, entry.mapping, strict=False):
            print(f"  {old} -> {GONE if now is None else entry.classes[now]}")
        before = entry.classes
