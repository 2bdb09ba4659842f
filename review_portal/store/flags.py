"""Flags: an expert says that something is wrong with an item that they hold."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from review_portal.core.model import Refusal, SlotState
from review_portal.store import audit, notes
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, item_content, slot


@dataclass(frozen=True)
class NewFlag:
    """What an expert says about an item.

    Attributes:
        item_id: 16 bytes.
        expert_id: Who says it.
        reason_code: personal_information, wrong_content, guideline_unclear or other.
        note: More words, sealed at rest.
    """

    item_id: bytes
    expert_id: int
    reason_code: str
    note: str = ""


def raise_flag(connection: Connection, keys: KeyRing, flag: NewFlag, now: float) -> int | Refusal:
    """Stores a flag. Returns its number, or a refusal for an item nobody gave to this expert."""
    row = connection.execute(
        select(item.c.item_number, item.c.campaign_id)
        .join(slot, slot.c.item_number == item.c.item_number)
        .where(item.c.item_id == flag.item_id, slot.c.expert_id == flag.expert_id)
    ).first()
    if row is None:
        return Refusal("ITEM_UNKNOWN", "you do not hold this item")
    place = notes.NotePlace(row.campaign_id, row.item_number, flag.expert_id, now)
    text = notes.NoteText(flag.note, sort="flag", reason_code=flag.reason_code)
    note_id = notes.put(connection, keys, place, text)
    event = audit.Event(
        f"person:{flag.expert_id}", "item.flagged", flag.item_id.hex(), {"why": flag.reason_code}
    )
    audit.append(connection, now, event)
    return note_id


def was_given(connection: Connection, item_id: bytes, expert_id: int) -> bool:
    """Returns whether an expert holds an item or has answered it."""
    found = connection.execute(
        select(slot.c.slot_id)
        .join(item, slot.c.item_number == item.c.item_number)
        .where(item.c.item_id == item_id, slot.c.expert_id == expert_id)
        .limit(1)
    ).first()
    return found is not None


def held_content(
    connection: Connection, item_id: bytes, expert_id: int
) -> tuple[bytes, bytes] | None:
    """Returns campaign id and sealed content of an item that an expert holds, or None."""
    row = connection.execute(
        select(item.c.campaign_id, item_content.c.sealed)
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .join(slot, slot.c.item_number == item.c.item_number)
        .where(
            item.c.item_id == item_id,
            slot.c.expert_id == expert_id,
            slot.c.state == SlotState.LEASED.value,
        )
        .limit(1)
    ).first()
    return None if row is None else (row.campaign_id, row.sealed)
