"""`perimeter-portal export --campaign NAME TARGET`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.access import read_secret
from review_portal.commands.settings import config_of
from review_portal.exporting import exported_items
from review_portal.interchange.errors import FormatUnsuited
from review_portal.interchange.formats import FORMATS, format_named
from review_portal.label_store import LabelStore
from review_portal.store import audit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("target", type=Path, help="file or folder that does not exist yet")
    parser.add_argument("--campaign", required=True, metavar="NAME")
    parser.add_argument("--split", choices=("train", "test"), default=None)
    parser.add_argument("--format", choices=sorted(FORMATS), default="jsonl")


def run(arguments: argparse.Namespace) -> int:
    """Writes all labels and prints what the format could not hold."""
    config = config_of(arguments)
    form = format_named(arguments.format)
    with LabelStore.open(config.folder) as store:
        campaign = store.campaign(arguments.campaign)
        if campaign.kind not in form.kinds:
            raise FormatUnsuited(f"{form.title} cannot hold {campaign.kind.value} items")
        schema = LabelSchema(campaign.classes, campaign.schema_version)
        items = exported_items(
            store, campaign, split=arguments.split, secret=read_secret(config.folder)
        )
        report = form.write(items, arguments.target, schema)
        event = audit.Event(
            "command", "labels.exported", campaign.name, {"format": form.name, "n": report.count}
        )
        store.database.write(lambda c: audit.append(c, time.time(), event))
    print(f"{report.count} items written to {arguments.target}")
    for step in report.lossy_steps:
        print(f"lossy: {step}")
    return 0
