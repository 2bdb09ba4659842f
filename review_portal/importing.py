"""Takes rows of a file into the label store beside a portal that serves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from review_portal.core.model import Campaign, MaskView, NewItem
from review_portal.interchange.records import ImportedRow
from review_portal.label_store import LabelStore
from review_portal.store.bulk_import import ImportedItem
from review_portal.store.campaigns import settings_of
from review_portal.store.items import Intake

CHUNK_ROWS = 100
"""Rows in one transaction: about 20 ms, so that an expert's decision never waits long."""
VOUCHED_POLICY = "vouched"


@dataclass(frozen=True)
class ImportPlan:
    """How rows become items.

    Attributes:
        campaign: Where they go.
        split: train or test; None takes the row's own, train without one.
        is_gold: Whether labeled rows may serve as hidden checks.
        clock: Seconds since the epoch.
    """

    campaign: Campaign
    split: str | None
    is_gold: bool
    clock: Callable[[], float]

    def item_of(self, row: ImportedRow) -> ImportedItem:
        """Returns the item of a row. Its id follows from the row's id, or from its content."""
        mark = row.source_id.encode() or hashlib.sha256(row.content).digest()
        digest = hashlib.sha256(b"import\0" + self.campaign.campaign_id + mark).digest()
        item = NewItem(
            item_id=digest[:16],
            campaign_id=self.campaign.campaign_id,
            kind=row.kind,
            content=row.content,
            mask=MaskView(VOUCHED_POLICY, "none", verified=False),
            split=self.split or row.split or "train",
        )
        key = row.answer.key if row.answer else None
        return ImportedItem(item, key, is_gold=self.is_gold and key is not None)


def import_rows(
    store: LabelStore,
    plan: ImportPlan,
    rows: Iterator[ImportedRow],
    *,
    pause: Callable[[float], None],
) -> tuple[int, int]:
    """Takes rows in, in small transactions with pauses as long as they took.

    Returns:
        How many were new, and how many were there before.
    """
    settings = store.database.read(lambda c: settings_of(c, plan.campaign.campaign_id))
    new = known = 0
    while chunk := [plan.item_of(row) for row in islice(rows, CHUNK_ROWS)]:
        began = time.monotonic()
        intake = Intake(plan.campaign, settings, store.keys, plan.clock())
        added = store.import_items(intake, chunk)
        new += added
        known += len(chunk) - added
        pause(time.monotonic() - began)
    return new, known
