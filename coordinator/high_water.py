"""Notices that the database was put back from a backup, and makes that safe for the budget.

A small file beside the database, best on another disk, says how far the ledger ever came, how many
grants each campaign ever made and how many labels it spent. It is written after the entries are
durable and before anyone is answered. A database that knows less than the file was restored:
positions go on above the file's, since agents have seen them, and the labels that sites may have
spent unknown to it are written off. So the budget is never passed; what is lost is bounded by what
happened since the backup, and audited.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from coordinator.core.entries import Restored
from coordinator.core.ledger import Ledger
from coordinator.durable_files import write_durably
from coordinator.errors import LedgerCorrupt


@dataclass(frozen=True)
class HighWater:
    """The highest ledger position; labels granted and spent per campaign (hex id)."""

    sequence: int
    granted: dict[str, int]
    spent: dict[str, int]


def measure(ledger: Ledger) -> HighWater:
    """Returns how far a ledger has come; what was written off counts as granted."""
    granted: dict[str, int] = {}
    spent: dict[str, int] = {}
    for campaign_id in ledger.campaign_ids():
        books = ledger.books(campaign_id)
        granted[campaign_id.hex()] = len(books.grant_ids) + books.written_off
        spent[campaign_id.hex()] = books.total.spent + books.written_off
    return HighWater(ledger.sequence, granted, spent)


def write_high_water(path: Path, mark: HighWater) -> None:
    """Writes the file; it is durable on return."""
    write_durably(path, json.dumps(vars(mark), sort_keys=True).encode("ascii"))


def read_high_water(path: Path) -> HighWater:
    """Reads the file; a missing one says nothing.

    Raises:
        LedgerCorrupt: The file is damaged: it must be mended or removed by a person.
    """
    try:
        content = json.loads(path.read_text(encoding="ascii"))
        return HighWater(int(content["sequence"]), dict(content["granted"]), dict(content["spent"]))
    except FileNotFoundError:
        return HighWater(0, {}, {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerCorrupt(
            0, f"{path} is damaged ({error}); put it back, or remove it if nothing was restored"
        ) from error


def judge_restore(ledger: Ledger, mark: HighWater, now: int) -> list[Restored]:
    """Decides what must be recorded when the ledger knows less than it once did.

    Written off are all grants that were lost, and as many of the open ones as there are spent
    labels that the ledger does not know: their outcomes may have been told, and only once.

    Returns:
        One entry for each campaign that lost labels, at positions above all that were ever used;
        nothing when the ledger is whole.
    """
    found = measure(ledger)
    sequence = max(ledger.sequence, mark.sequence)
    entries: list[Restored] = []
    for campaign_id in ledger.campaign_ids():
        key = campaign_id.hex()
        granted = max(0, mark.granted.get(key, 0) - found.granted[key])
        spent = max(0, mark.spent.get(key, 0) - found.spent[key])
        lost = granted + min(spent, ledger.books(campaign_id).total.reserved)
        if lost > 0:
            sequence += 1
            entries.append(Restored(sequence, now, campaign_id, lost))
    return entries
