"""Items come in, wait, and end. One function per event; the caller owns the transaction."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from review_portal.core.model import Campaign, ItemState, NewItem, Purpose, SlotState
from review_portal.store import audit, counters, leak_terms, outbox, site_totals
from review_portal.store.campaigns import CampaignSettings
from review_portal.store.database import insert_row
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, item_content, slot

IMPORT_PRIORITY = 1 << 40
"""Imported items without a grant come after those that the federation waits for."""


@dataclass(frozen=True)
class Intake:
    """Where new items go.

    Attributes:
        campaign: Their campaign.
        settings: The site's settings of it.
        keys: Seals their content.
        now: Seconds since the epoch.
    """

    campaign: Campaign
    settings: CampaignSettings
    keys: KeyRing
    now: float


def content_row(item_id: bytes) -> bytes:
    """Returns the name under which an item's content is sealed."""
    return b"item\0" + item_id


def pack_probabilities(probabilities: tuple[float, ...]) -> bytes:
    """Returns float32[classes], little-endian.

    >>> pack_probabilities((0.5,)).hex()
    '0000003f'
    """
    return struct.pack(f"<{len(probabilities)}f", *probabilities)


def unpack_probabilities(packed: bytes) -> tuple[float, ...]:
    """Returns the class probabilities of a row.

    >>> unpack_probabilities(pack_probabilities((0.25, 0.75)))
    (0.25, 0.75)
    """
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def is_chosen(item_id: bytes, purpose: str, ratio: float) -> bool:
    """Decides by the item's id whether it belongs to a share of all items; the same every time.

    >>> is_chosen(bytes(16), "double", 1.0), is_chosen(bytes(16), "double", 0.0)
    (True, False)
    """
    digest = hashlib.sha256(purpose.encode() + b"\0" + item_id).digest()
    return int.from_bytes(digest[:8], "big") < ratio * 2**64


def find_item_number(connection: Connection, item_id: bytes) -> int | None:
    """Returns the row number of an item, or None."""
    return connection.execute(select(item.c.item_number).where(item.c.item_id == item_id)).scalar()


def insert_item(connection: Connection, intake: Intake, new: NewItem, state: ItemState) -> int:
    """Writes item and content and counts it. Makes no slots.

    Returns:
        The item's row number.
    """
    best = max(range(len(new.probabilities)), key=new.probabilities.__getitem__, default=None)
    number = insert_row(
        connection,
        item.insert().values(
            item_id=new.item_id,
            campaign_id=new.campaign_id,
            kind=new.kind.value,
            split=new.split,
            state=state.value,
            wanted_count=wanted_count(intake, new),
            grant_id=new.grant.grant_id if new.grant else None,
            candidate_id=new.grant.candidate_id if new.grant else derived_id(new.item_id),
            grant_reason=new.grant.reason.value if new.grant else "",
            grant_expire_at=new.grant.expire_at if new.grant else None,
            grant_model_version=new.grant.model_version if new.grant else 0,
            model_version=new.model_version,
            schema_version=intake.campaign.schema_version,
            probabilities=pack_probabilities(new.probabilities),
            suggestion_index=best,
            confidence=None if best is None else new.probabilities[best],
            prototype_class=new.prototype_class,
            margin=new.margin,
            language=new.language,
            mask_policy=new.mask.policy_version,
            mask_level=new.mask.level,
            mask_spans=json.dumps(new.mask.spans),
            content_sha256=hashlib.sha256(new.content).digest(),
            received_at=intake.now,
        ),
    )
    sealed = intake.keys.seal(new.campaign_id, content_row(new.item_id), new.content)
    connection.execute(item_content.insert().values(item_number=number, sealed=sealed))
    counters.bump(connection, new.campaign_id, counters.state_name(state.value))
    return number


def wanted_count(intake: Intake, new: NewItem) -> int:
    """Returns how many experts an item asks, by overlap and by the site's share of pairs."""
    paired = is_chosen(new.item_id, "double", intake.settings.double_ratio)
    return max(intake.campaign.overlap_count, 2 if paired else 1)


def derived_id(item_id: bytes) -> bytes:
    """Returns what stands for the candidate id of an item that no device offered."""
    return hashlib.sha256(b"candidate\0" + item_id).digest()[:16]


def receive(connection: Connection, intake: Intake, new: NewItem, actor: str) -> bool:
    """Takes an item into the queue, or holds it when the site lead wants to look first.

    Returns:
        False when the item was there before; nothing changes then.
    """
    if find_item_number(connection, new.item_id) is not None:
        return False
    new = leak_terms.masked(connection, intake.keys, new)
    state = ItemState.HELD if intake.settings.is_held else ItemState.OPEN
    number = insert_item(connection, intake, new, state)
    if state is ItemState.OPEN:
        open_slots(connection, number)
    if new.grant is not None:
        site_totals.note_asked(
            connection,
            new.campaign_id,
            at=intake.now,
            version=new.grant.model_version,
            reason=new.grant.reason.value,
        )
        released = outbox.OutcomeRow(new.grant.grant_id, new.campaign_id, "RELEASED")
        outbox.put(connection, released, send_after=intake.now)
    audit.append(
        connection,
        intake.now,
        audit.Event(actor, "item.received", new.item_id.hex(), {"state": state.value}),
    )
    return True


def open_slots(connection: Connection, item_number: int) -> None:
    """Opens the wanted slots of an item, less those that experts have answered already."""
    row = connection.execute(select(item).where(item.c.item_number == item_number)).one()
    answered = connection.exec_driver_sql(
        "SELECT count(*) FROM slot WHERE item_number = ? AND state = 2 AND purpose = 'work'",
        (item_number,),
    ).scalar_one()
    if answered >= row.wanted_count:
        return
    priority = IMPORT_PRIORITY if row.grant_id is None else _priority(row.grant_expire_at)
    connection.execute(
        slot.insert(),
        [
            {
                "item_number": item_number,
                "campaign_id": row.campaign_id,
                "subject_id": row.candidate_id,
                "purpose": Purpose.WORK.value,
                "state": SlotState.OPEN.value,
                "priority": priority,
                "language": row.language,
            }
            for _ in range(row.wanted_count - answered)
        ],
    )


def _priority(expire_at: float | None) -> int:
    # Grants of an earlier allocation end earlier, so the day of their end keeps the coordinator's
    # order between allocations; inside one, slot ids keep the order of arrival.
    return 0 if expire_at is None else int(expire_at // 86400)


def change_state(connection: Connection, item_number: int, state: ItemState) -> None:
    """Moves an item to another state and keeps the counts."""
    row = connection.exec_driver_sql(
        "SELECT campaign_id, state FROM item WHERE item_number = ?", (item_number,)
    ).one()
    if row.state == state.value:
        return
    connection.exec_driver_sql(
        "UPDATE item SET state = ? WHERE item_number = ?", (state.value, item_number)
    )
    counters.bump(connection, row.campaign_id, counters.state_name(row.state), -1)
    counters.bump(connection, row.campaign_id, counters.state_name(state.value))


def void_slots(connection: Connection, item_number: int) -> None:
    """Closes the slots of an item that nobody answered."""
    connection.execute(
        update(slot)
        .where(
            slot.c.item_number == item_number,
            slot.c.state.in_([SlotState.OPEN.value, SlotState.LEASED.value]),
        )
        .values(state=SlotState.VOID.value, expert_id=None, lease_id=None)
    )


_EXPIRING = (
    "SELECT item_number, item_id FROM item WHERE state IN ('OPEN', 'HELD', 'DISPUTED') "
    "AND grant_expire_at IS NOT NULL AND grant_expire_at <= ? "
    "AND item_number NOT IN (SELECT item_number FROM slot WHERE state = 1) LIMIT ?"
)


def expire(connection: Connection, now: float, *, count: int = 500) -> int:
    """Ends items whose grant is void. What an expert still holds under a lease stays until it ends.

    Returns:
        How many ended.
    """
    rows = connection.exec_driver_sql(_EXPIRING, (now, count)).all()
    for row in rows:
        end_unlabeled(connection, row.item_number, ItemState.EXPIRED, now=now)
    events = [audit.Event("clock", "item.expired", row.item_id.hex()) for row in rows]
    audit.append(connection, now, *events)
    return len(rows)


def end_unlabeled(
    connection: Connection, item_number: int, state: ItemState, *, now: float
) -> None:
    """Ends an item without a label and tells the coordinator, so that the budget comes back."""
    row = connection.execute(
        select(item.c.grant_id, item.c.campaign_id).where(item.c.item_number == item_number)
    ).one()
    change_state(connection, item_number, state)
    void_slots(connection, item_number)
    if row.grant_id is not None:
        ended = outbox.OutcomeRow(row.grant_id, row.campaign_id, state.value)
        outbox.put(connection, ended, send_after=now)
