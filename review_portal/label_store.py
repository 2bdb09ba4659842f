"""A site's label store: items, answers and labels, sealed at rest, never leaving the site.

The read side is what training uses, from a process of its own while the portal writes:

    store = LabelStore.open(folder, read_only=True)
    for labeled in store.examples(campaign_id, "train"):
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from review_portal.core.model import Campaign, ItemState
from review_portal.errors import StoreMissing
from review_portal.store import audit, counters, items, site_totals
from review_portal.store import campaigns as campaign_rows
from review_portal.store.bulk_import import ImportedItem, import_chunk
from review_portal.store.database import FILE_NAME, Database
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, item_content, label

PAGE_ROWS = 500
TEACHING_STATES = (ItemState.OPEN, ItemState.DISPUTED, ItemState.ABSTAINED, ItemState.EXPIRED)
"""States of items without a label that training may look at: nobody held or declined them."""


@dataclass(frozen=True)
class LabeledItem:
    """One item with its standing label.

    Attributes:
        item_id: 16 bytes.
        kind: text, image, series or record.
        content: Masked content, encoded as the kind says.
        class_index: Class in the present label schema.
        split: train or test.
        origin: expert, import or auto.
    """

    item_id: bytes
    kind: str
    content: bytes
    class_index: int
    split: str
    origin: str


@dataclass(frozen=True)
class UnlabeledItem:
    """One item that has no label.

    Attributes:
        item_id: 16 bytes.
        kind: text, image, series or record.
        content: Masked content, encoded as the kind says.
    """

    item_id: bytes
    kind: str
    content: bytes


class LabelStore:
    """The site's label store in one folder: `labels.db` and `keys/`."""

    def __init__(self, database: Database, keys: KeyRing) -> None:
        self.database = database
        self.keys = keys

    @classmethod
    def open(cls, folder: Path | str, *, read_only: bool = False) -> LabelStore:
        """Opens the store of a folder, and makes it when it may write.

        Raises:
            StoreMissing: Read-only, and the folder holds none.
            StoreNewer: A newer portal wrote it.
        """
        place = Path(folder)
        if not read_only:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(place / FILE_NAME, read_only=read_only)
        if not read_only:
            database.write(site_totals.recount_if_missing)
        return cls(database, KeyRing(place / "keys", read_only=read_only))

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finishes queued writes and closes the files."""
        self.database.close()

    def campaigns(self) -> tuple[Campaign, ...]:
        """Returns all campaigns of the site."""
        return self.database.read(campaign_rows.list_campaigns)

    def campaign(self, name_or_hex: str) -> Campaign:
        """Returns a campaign by its name or by its id in hex.

        Raises:
            StoreMissing: The site knows no such campaign.
        """
        found = self.database.read(lambda c: campaign_rows.find_campaign_named(c, name_or_hex))
        if found is None:
            known = ", ".join(entry.name for entry in self.campaigns()) or "none yet"
            raise StoreMissing(f"no campaign {name_or_hex!r} at this site; known: {known}")
        return found

    def put_campaign(self, new: campaign_rows.NewCampaign, now: float) -> bool:
        """Stores a campaign or what changed about it. Returns whether anything changed."""

        def work(connection: Connection) -> bool:
            changed = campaign_rows.put_campaign(connection, new, now)
            if changed:
                detail = {"schema_version": new.schema.version, "state": new.state}
                event = audit.Event(
                    "coordinator", "campaign.changed", new.campaign_id.hex(), detail
                )
                audit.append(connection, now, event)
            return changed

        return self.database.write(work)

    def label_count(self, campaign_id: bytes, split: str = "train") -> int:
        """Returns how many standing labels a split has, whoever made them."""
        counted = self.database.read(lambda c: counters.counts(c, campaign_id))
        return sum(n for name, n in counted.items() if name.startswith(f"labels.{split}."))

    def label_counts(self, campaign_id: bytes, split: str = "train") -> dict[int, int]:
        """Returns the number of standing labels per class."""
        counted = self.database.read(lambda c: counters.counts(c, campaign_id))
        by_class: dict[int, int] = {}
        for name, count in counted.items():
            head, _, index = name.rpartition(".")
            if head.startswith(f"labels.{split}.") and index.isdigit():
                by_class[int(index)] = by_class.get(int(index), 0) + count
        return by_class

    def expert_label_count(self, campaign_id: bytes) -> int:
        """Returns how many standing labels experts gave under grants: what the budget paid for."""
        counted = self.database.read(lambda c: counters.counts(c, campaign_id))
        return sum(n for name, n in counted.items() if name.startswith("labels.train.expert."))

    def examples(self, campaign_id: bytes, split: str = "train") -> Iterator[LabeledItem]:
        """Yields the items with a standing label of one class, in order of labeling.

        Labels of older schema versions come in the classes of the present one; those whose class
        went are left out. Reads in pages, so that a long training run holds up no writer.

        Args:
            campaign_id: 16 bytes.
            split: train or test.

        Raises:
            KeyMissing: The campaign's key was deleted.
        """
        mappings: dict[int, tuple[int | None, ...] | None] = {}
        last_label_id = 0
        while True:
            page = _standing(campaign_id, split).where(label.c.label_id > last_label_id)
            rows = self.database.read(_fetch(page.limit(PAGE_ROWS)))
            for row in rows:
                class_index = self._present_class(campaign_id, row, mappings)
                if class_index is not None:
                    yield self._labeled(campaign_id, row, class_index)
            if len(rows) < PAGE_ROWS:
                return
            last_label_id = rows[-1].label_id

    def unlabeled(self, campaign_id: bytes, limit: int) -> Iterator[UnlabeledItem]:
        """Yields the newest training items without a label, for trainers that learn from them too.

        Items that the site lead holds or declined, hidden gold and the test split stay out.

        Args:
            campaign_id: 16 bytes.
            limit: Most items, from 0.

        Raises:
            KeyMissing: The campaign's key was deleted.
        """
        last, left = 2**62, limit
        while left > 0:
            page = _without_label(campaign_id).where(item.c.item_number < last)
            rows = self.database.read(_fetch(page.limit(min(PAGE_ROWS, left))))
            for row in rows:
                yield UnlabeledItem(row.item_id, row.kind, self._open(campaign_id, row))
            if len(rows) < PAGE_ROWS:
                return
            last, left = rows[-1].item_number, left - len(rows)

    def _present_class(
        self,
        campaign_id: bytes,
        row: Row[tuple[object, ...]],
        mappings: dict[int, tuple[int | None, ...] | None],
    ) -> int | None:
        version = row.schema_version
        if version not in mappings:
            mappings[version] = self.database.read(
                lambda c: campaign_rows.mapping_to_current(c, campaign_id, version)
            )
        mapping = mappings[version]
        return int(row.class_index) if mapping is None else mapping[row.class_index]

    def _labeled(
        self, campaign_id: bytes, row: Row[tuple[object, ...]], class_index: int
    ) -> LabeledItem:
        content = self._open(campaign_id, row)
        return LabeledItem(row.item_id, row.kind, content, class_index, row.split, row.origin)

    def _open(self, campaign_id: bytes, row: Row[tuple[object, ...]]) -> bytes:
        return self.keys.unseal(campaign_id, items.content_row(row.item_id), row.sealed)

    def import_items(self, intake: items.Intake, new: list[ImportedItem]) -> int:
        """Takes a chunk of items from a file; those that are there already stay as they are.

        Returns:
            How many were new.
        """
        return self.database.write(lambda c: import_chunk(c, intake, new))


def _fetch(query: Select[Any]) -> Callable[[Connection], Sequence[Row[Any]]]:
    return lambda connection: connection.execute(query).all()


def _standing(campaign_id: bytes, split: str) -> Select[Any]:
    return (
        select(
            label.c.label_id,
            label.c.class_index,
            label.c.schema_version,
            label.c.origin,
            label.c.split,
            item.c.item_id,
            item.c.kind,
            item_content.c.sealed,
        )
        .join(item, item.c.item_number == label.c.item_number)
        .join(item_content, item_content.c.item_number == label.c.item_number)
        .where(
            label.c.campaign_id == campaign_id,
            label.c.split == split,
            label.c.superseded_by.is_(None),
            label.c.class_index.is_not(None),
        )
        .order_by(label.c.label_id)
    )


def _without_label(campaign_id: bytes) -> Select[Any]:
    return (
        select(item.c.item_number, item.c.item_id, item.c.kind, item_content.c.sealed)
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .where(
            item.c.campaign_id == campaign_id,
            item.c.state.in_([state.value for state in TEACHING_STATES]),
            item.c.split == "train",
            ~item.c.is_gold,
        )
        .order_by(item.c.item_number.desc())
    )
