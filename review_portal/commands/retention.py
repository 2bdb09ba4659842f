"""`perimeter-portal retention [--days N] [--yes]`."""

from __future__ import annotations

import argparse
import sys
import time

from review_portal.commands.settings import config_of
from review_portal.errors import ConfigInvalid
from review_portal.label_store import LabelStore
from review_portal.retention import SECONDS_PER_DAY, Keeper
from review_portal.store import retention


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--days", type=int, help="age limit, in place of the setting's")
    parser.add_argument("--yes", action="store_true", help="do it; there is no way back")


def run(arguments: argparse.Namespace) -> int:
    """Removes content that is older than the limit, now."""
    config = config_of(arguments)
    days = config.retention_days if arguments.days is None else arguments.days
    if days < 1:
        raise ConfigInvalid("no age limit: set retention_days or give --days, at least 1")
    now = time.time()
    before = now - days * SECONDS_PER_DAY
    with LabelStore.open(config.folder) as store:
        if not arguments.yes:
            count = store.database.read(lambda c: retention.count_old(c, before))
            over = store.database.read(lambda c: retention.ended(c, store.keys, before=before))
            print(
                f"this removes the content of {count} items for good and the keys of {len(over)} "
                "campaigns that ended; add --yes",
                file=sys.stderr,
            )
            return 1
        keeper, removed = Keeper(store, days), 0
        while True:
            batch = keeper.remove(now, actor="command")
            removed += batch
            if batch < retention.BATCH_ROWS:
                break
        print(f"content of {removed} items removed")
    return 0
