"""`perimeter-portal sync`."""

from __future__ import annotations

import argparse
import sys

from review_portal.commands.settings import config_of, link_of
from review_portal.errors import EnrollmentFailed
from review_portal.label_store import LabelStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Does one turn with the coordinator."""
    config = config_of(arguments)
    with LabelStore.open(config.folder) as store:
        link = link_of(config, store)
        if link is None:
            raise EnrollmentFailed("run `perimeter-portal enroll` with a join token first")
        if not link.turn():
            print(f"coordinator not reached: {link.state.last_error}", file=sys.stderr)
            return 1
        for campaign in store.campaigns():
            print(f"{campaign.name}\t{campaign.state}\t{campaign.kind}")
    return 0
