"""`perimeter-portal init`."""

from __future__ import annotations

import argparse

from review_portal.access import read_secret
from review_portal.commands.settings import config_of
from review_portal.label_store import LabelStore
from review_portal.store.key_places import choose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Makes what is missing; a second run changes nothing."""
    config = config_of(arguments)
    choose(config.folder / "keys", config.key_store)
    LabelStore.open(config.folder).close()
    read_secret(config.folder)
    print(f"label store ready in {config.folder}")
    return 0
