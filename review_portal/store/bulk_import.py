"""Many items at once: one statement per table for a whole chunk."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select

from review_portal.core.leaks import moved_answer
from review_portal.core.model import ItemState, NewItem, Origin, Purpose, Settlement, SlotState
from review_portal.store import audit, counters, items, leak_terms
from review_portal.store.settling import class_of
from review_portal.store.tables import item, item_content, label, slot


@dataclass(frozen=True)
class ImportedItem:
    """A labeled or unlabeled item from a file.

    Attributes:
        item: The item, without a grant.
        answer_key: Its answer, or None to let experts label it.
        is_gold: Whether it may serve as a hidden check of experts.
    """

    item: NewItem
    answer_key: str | None
    is_gold: bool = False

    @property
    def state(self) -> ItemState:
        """State in which the item begins."""
        return ItemState.OPEN if self.answer_key is None else ItemState.LABELED


def import_chunk(
    connection: Connection, intake: items.Intake, chunk: Sequence[ImportedItem]
) -> int:
    """Takes a chunk in; items that are there already stay as they are.

    Returns:
        How many were new.
    """
    fresh = _unknown(connection, chunk)
    if not fresh:
        return 0
    terms = leak_terms.words(connection, intake.keys)
    fresh = [_without(terms, entry) for entry in fresh]
    first = (connection.execute(select(func.max(item.c.item_number))).scalar() or 0) + 1
    numbered = list(enumerate(fresh, start=first))
    connection.execute(item.insert(), [_item_row(intake, n, entry) for n, entry in numbered])
    connection.execute(
        item_content.insert(), [_content_row(intake, n, entry) for n, entry in numbered]
    )
    slots = [row for n, entry in numbered for row in _slot_rows(intake, n, entry)]
    if slots:
        connection.execute(slot.insert(), slots)
    labels = [_label_row(intake, n, entry) for n, entry in numbered if entry.answer_key]
    if labels:
        connection.execute(label.insert(), labels)
    _count(connection, intake, fresh)
    _note(connection, intake, fresh)
    return len(fresh)


def _without(terms: Sequence[str], entry: ImportedItem) -> ImportedItem:
    """Returns an item without the words on the site's list, its marked spans moved along."""
    new, shifts = leak_terms.without(terms, entry.item)
    key = entry.answer_key
    return replace(entry, item=new, answer_key=moved_answer(key, shifts) if key else key)


def _unknown(connection: Connection, chunk: Sequence[ImportedItem]) -> list[ImportedItem]:
    by_id = {entry.item.item_id: entry for entry in chunk}
    known = connection.execute(
        select(item.c.item_id).where(item.c.item_id.in_(list(by_id)))
    ).scalars()
    gone = set(known)
    return [entry for item_id, entry in by_id.items() if item_id not in gone]


def _item_row(intake: items.Intake, number: int, entry: ImportedItem) -> dict[str, Any]:
    new = entry.item
    return {
        "item_number": number,
        "item_id": new.item_id,
        "campaign_id": new.campaign_id,
        "kind": new.kind.value,
        "split": new.split,
        "state": entry.state.value,
        "wanted_count": items.wanted_count(intake, new),
        "is_gold": entry.is_gold and entry.answer_key is not None,
        "candidate_id": items.derived_id(new.item_id),
        "schema_version": intake.campaign.schema_version,
        "language": new.language,
        "mask_policy": new.mask.policy_version,
        "mask_level": new.mask.level,
        "mask_spans": json.dumps(new.mask.spans),
        "content_sha256": hashlib.sha256(new.content).digest(),
        "probabilities": b"",
        "received_at": intake.now,
    }


def _content_row(intake: items.Intake, number: int, entry: ImportedItem) -> dict[str, Any]:
    row_name = items.content_row(entry.item.item_id)
    sealed = intake.keys.seal(entry.item.campaign_id, row_name, entry.item.content)
    return {"item_number": number, "sealed": sealed}


def _slot_rows(intake: items.Intake, number: int, entry: ImportedItem) -> list[dict[str, Any]]:
    if entry.answer_key is not None:
        return []
    row = {
        "item_number": number,
        "campaign_id": entry.item.campaign_id,
        "subject_id": items.derived_id(entry.item.item_id),
        "purpose": Purpose.WORK.value,
        "state": SlotState.OPEN.value,
        "priority": items.IMPORT_PRIORITY,
        "language": entry.item.language,
    }
    return [row] * items.wanted_count(intake, entry.item)


def _label_row(intake: items.Intake, number: int, entry: ImportedItem) -> dict[str, Any]:
    key = entry.answer_key or ""
    return {
        "item_number": number,
        "campaign_id": entry.item.campaign_id,
        "split": entry.item.split,
        "class_index": class_of(key),
        "answer_key": key,
        "schema_version": intake.campaign.schema_version,
        "settlement": Settlement.IMPORT.value,
        "origin": Origin.IMPORT.value,
        "annotation_ids": "[]",
        "model_version": 0,
        "created_at": intake.now,
    }


def _count(connection: Connection, intake: items.Intake, fresh: Sequence[ImportedItem]) -> None:
    names: Counter[str] = Counter()
    for entry in fresh:
        names[counters.state_name(entry.state.value)] += 1
        if entry.answer_key is not None:
            class_index = class_of(entry.answer_key)
            names[counters.label_name(entry.item.split, class_index, Origin.IMPORT.value)] += 1
    for name, count in names.items():
        counters.bump(connection, intake.campaign.campaign_id, name, count)


def _note(connection: Connection, intake: items.Intake, fresh: Sequence[ImportedItem]) -> None:
    digest = hashlib.sha256(b"".join(entry.item.item_id for entry in fresh)).hexdigest()
    detail = {"count": len(fresh), "ids_sha256": digest}
    event = audit.Event("command", "items.imported", intake.campaign.campaign_id.hex(), detail)
    audit.append(connection, intake.now, event)
