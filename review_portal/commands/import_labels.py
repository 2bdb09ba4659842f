"""`perimeter-portal import --campaign NAME --split test FILE`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.commands.settings import config_of, link_of
from review_portal.config import PortalConfig
from review_portal.core.model import Campaign
from review_portal.errors import ImportInvalid, StoreMissing
from review_portal.importing import ImportPlan, import_rows
from review_portal.interchange.formats import FORMATS, Format, format_named
from review_portal.interchange.records import ImportedRow, ReadRow, RefusedRow
from review_portal.label_store import LabelStore

SHOWN_PROBLEMS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("file", type=Path)
    parser.add_argument("--campaign", required=True, metavar="NAME")
    parser.add_argument("--split", choices=("train", "test"), default=None)
    parser.add_argument("--format", choices=sorted(FORMATS), default="jsonl")
    parser.add_argument("--gold", action="store_true", help="labeled rows may check experts")
    parser.add_argument(
        "--vouch",
        action="store_true",
        help="you vouch that the content is masked or holds no personal data; needed for rows that "
        "experts will see: those without a label, and gold",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave bad rows out")


def run(arguments: argparse.Namespace) -> int:
    """Reads the file twice: once to check every row, once to take it in."""
    config = config_of(arguments)
    source = format_named(arguments.format)
    with LabelStore.open(config.folder) as store:
        campaign = _campaign(config, store, arguments.campaign)
        _check(arguments, source, campaign)
        plan = ImportPlan(campaign, split=arguments.split, is_gold=arguments.gold, clock=time.time)
        rows = _good_rows(_rows(arguments.file, source, campaign))
        new, known = import_rows(store, plan, rows, pause=time.sleep)
    print(f"{new} items imported into {campaign.name}, {known} were there before")
    return 0


def _campaign(config: PortalConfig, store: LabelStore, name: str) -> Campaign:
    try:
        return store.campaign(name)
    except StoreMissing:
        link = link_of(config, store)
        if link is None or not link.turn():
            raise
    return store.campaign(name)


def _rows(path: Path, source: Format, campaign: Campaign) -> Iterator[ReadRow]:
    schema = LabelSchema(campaign.classes, campaign.schema_version)
    return source.read(path, schema, campaign.kind)


def _check(arguments: argparse.Namespace, source: Format, campaign: Campaign) -> None:
    bad: list[RefusedRow] = []
    shown = good = 0
    for row in _rows(arguments.file, source, campaign):
        if isinstance(row, RefusedRow):
            bad.append(row)
        else:
            good += 1
            shown += row.answer is None or arguments.gold
    for row in bad[:SHOWN_PROBLEMS]:
        name = f" ({row.source_id})" if row.source_id else ""
        print(f"row {row.row_number}{name}: {row.reason}; {row.remedy}", file=sys.stderr)
    if bad and not arguments.skip_bad:
        raise ImportInvalid(
            f"{len(bad)} of {len(bad) + good} rows are bad, so nothing was imported; "
            "correct them, or leave them out with --skip-bad"
        )
    if shown and not arguments.vouch:
        raise ImportInvalid(
            f"experts would see {shown} of the rows; mask them first and say so with --vouch"
        )


def _good_rows(rows: Iterator[ReadRow]) -> Iterator[ImportedRow]:
    return (row for row in rows if isinstance(row, ImportedRow))
