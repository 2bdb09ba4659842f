"""`perimeter-portal shred CAMPAIGN --yes`."""

from __future__ import annotations

import argparse
import sys
import time

from review_portal.commands.settings import config_of
from review_portal.label_store import LabelStore
from review_portal.store import audit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("campaign", help="name of the campaign")
    parser.add_argument("--yes", action="store_true", help="do it; there is no way back")


def run(arguments: argparse.Namespace) -> int:
    """Deletes the campaign's key."""
    with LabelStore.open(config_of(arguments).folder) as store:
        campaign = store.campaign(arguments.campaign)
        if not arguments.yes:
            print(
                f"this makes all content of {campaign.name} unreadable for good; add --yes",
                file=sys.stderr,
            )
            return 1
        store.keys.shred(campaign.campaign_id)
        event = audit.Event("command", "campaign.shredded", campaign.campaign_id.hex())
        store.database.write(lambda c: audit.append(c, time.time(), event))
        print(f"key of {campaign.name} deleted; its content is unreadable now")
    return 0
