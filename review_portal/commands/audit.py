"""`perimeter-portal audit verify|head`."""

from __future__ import annotations

import argparse

from review_portal.commands.settings import config_of
from review_portal.errors import AuditBroken
from review_portal.label_store import LabelStore
from review_portal.store import audit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("verify", "head"))
    parser.add_argument(
        "--witness",
        metavar="NUMBER:HASH",
        help="a head that was noted earlier; shows that nothing was cut off or rewritten since",
    )


def run(arguments: argparse.Namespace) -> int:
    """Verifies the whole chain, or prints its head for somebody else to keep."""
    with LabelStore.open(config_of(arguments).folder, read_only=True) as store:
        verified = store.database.read(audit.verify)
        if verified.first_broken is not None:
            raise AuditBroken(f"the audit log is broken at row {verified.first_broken}")
        if arguments.action == "head":
            print(f"{verified.event_count}:{verified.head}")
            return 0
        if arguments.witness:
            _check_witness(store, arguments.witness)
        print(f"{verified.event_count} events verified, head {verified.head}")
    return 0


def _check_witness(store: LabelStore, witness: str) -> None:
    number, _, head = witness.partition(":")
    if not number.isdigit():
        raise AuditBroken(f"witness {witness!r} must look like NUMBER:HASH")
    found = store.database.read(lambda c: audit.head_at(c, int(number)))
    if found != head.strip().lower():
        raise AuditBroken(f"row {number} is missing or differs from its witness")
