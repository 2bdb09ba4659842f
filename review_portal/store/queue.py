"""Leases: an expert takes items for a while, and nobody else gets them meanwhile."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.sqlite import insert

from review_portal.core.leasing import Slot, choose_slots
from review_portal.core.model import SlotState
from review_portal.store import audit, checks, present
from review_portal.store.campaigns import settings_of
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, item_content, slot
from review_portal.store.tables import skip as skip_rows

LEASE_COUNT_MAX = 50
SKIP_SECONDS = 86400.0

# Written out: building them costs more than running them, and SQLite uses a partial index only for
# states that are written as numbers. Slot states are those of `core.model.SlotState`.
_REOPEN = (
    "UPDATE slot SET state = 0, expert_id = NULL, lease_id = NULL, lease_until = NULL "
    "WHERE state = 1 AND lease_until <= ?"
)
_HELD = (
    "SELECT slot_id FROM slot WHERE state = 1 AND expert_id = ? AND campaign_id = ? "
    "ORDER BY priority, slot_id LIMIT ?"
)
_RESERVED = (
    "SELECT slot_id, subject_id, state, priority, reserved_for, expert_id, lease_until FROM slot "
    "WHERE state = 0 AND reserved_for = ? AND campaign_id = ? ORDER BY priority, slot_id LIMIT ?"
)
_OPEN = (
    "SELECT slot_id, subject_id, state, priority, reserved_for, expert_id, lease_until FROM slot "
    "WHERE campaign_id = ? AND state = 0 AND reserved_for IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM slot AS mine WHERE mine.subject_id = slot.subject_id "
    "AND mine.expert_id = ? AND mine.state IN (1, 2)) "
    "AND NOT EXISTS (SELECT 1 FROM skip WHERE skip.subject_id = slot.subject_id "
    "AND skip.expert_id = ? AND skip.until > ?) "
    "{languages} ORDER BY priority, slot_id LIMIT ?"
)


@dataclass(frozen=True)
class LeaseRequest:
    """What an expert asks for.

    Attributes:
        expert_id: Who asks.
        campaign_id: 16 bytes.
        count: Items that the expert wants to hold, those held already included; 1 to 50.
        now: Seconds since the epoch.
        until: When new leases end.
        languages: Languages that the expert reads; empty for all.
        renew: Whether leases held already get new ids. A page that opens asks for it, so that what
            the page before it still says about its leases, closing, changes nothing.
    """

    expert_id: int
    campaign_id: bytes
    count: int
    now: float
    until: float
    languages: tuple[str, ...] = ()
    renew: bool = False


@dataclass(frozen=True)
class QueuedItem:
    """An item as one expert may see it. Nothing in it tells work, gold and repeats apart.

    Attributes:
        item_id: 16 bytes.
        lease_id: Proof of the lease.
        lease_until: Seconds since the epoch.
        kind: text, image, series or record.
        sealed: Sealed content; `unseal_item` opens it outside of the transaction.
        probabilities: Class probabilities, float32 packed; empty when unknown.
        suggestion_index: Suggested class, or None.
        confidence: The model's own probability of it.
        prototype_class: Class of the nearest prototype, or None.
        model_version: Version that suggested.
        margin: Acquisition score in 1/63.
        reason: Why the federation asked.
        language: BCP 47, or empty.
        mask_level: strict, balanced, light or none.
        mask_spans: (start, end, entity type).
        candidate_id: 16 bytes.
        content_sha256: 32 bytes.
        priority: Of its slot; lower comes first.
        schema_version: Label schema under which it came.
    """

    item_id: bytes
    lease_id: str
    lease_until: float
    kind: str
    sealed: bytes
    probabilities: bytes
    suggestion_index: int | None
    confidence: float | None
    prototype_class: int | None
    model_version: int
    margin: int
    reason: str
    language: str
    mask_level: str
    mask_spans: tuple[tuple[int, int, str], ...]
    candidate_id: bytes
    content_sha256: bytes
    priority: int = 0
    schema_version: int = 0


def reopen_expired(connection: Connection, now: float) -> int:
    """Gives slots back whose lease ran out. Returns how many."""
    return connection.exec_driver_sql(_REOPEN, (now,)).rowcount


def lease(connection: Connection, request: LeaseRequest) -> tuple[QueuedItem, ...]:
    """Fills up what an expert holds and writes each view to the audit log, in one transaction.

    Items held already come first and their leases are extended, so that a reloaded page goes on
    where it was.
    """
    reopen_expired(connection, request.now)
    held = _held_ids(connection, request)
    wanted = min(request.count, LEASE_COUNT_MAX) - len(held)
    settings = settings_of(connection, request.campaign_id)
    checked = checks.lease_checks(connection, request, settings, wanted)
    wanted -= len(checked)
    fresh = _choose(connection, request, wanted) if wanted > 0 else ()
    if held:
        connection.execute(
            update(slot).where(slot.c.slot_id.in_(held)).values(lease_until=request.until)
        )
    if fresh:
        _take(connection, request, fresh)
    if request.renew and held:
        _renew(connection, held)
    queued = _load(connection, (*held, *checked, *fresh))
    queued = present.queued(connection, queued, request.campaign_id)
    queued = checks.disguised(connection, queued, request.campaign_id)
    known = {entry.lease_id for entry in queued[: len(held)]}
    # Order by priority, then by chance: nothing tells a check from its place.
    queued = tuple(sorted(queued, key=lambda entry: (entry.priority, entry.lease_id)))
    new_leases = [entry for entry in queued if entry.lease_id not in known]
    audit.append(
        connection,
        request.now,
        *(
            audit.Event(f"person:{request.expert_id}", "item.viewed", entry.item_id.hex())
            for entry in new_leases
        ),
    )
    return queued


def _held_ids(connection: Connection, request: LeaseRequest) -> tuple[int, ...]:
    wanted = (request.expert_id, request.campaign_id, LEASE_COUNT_MAX)
    return tuple(connection.exec_driver_sql(_HELD, wanted).scalars())


def _choose(connection: Connection, request: LeaseRequest, count: int) -> tuple[int, ...]:
    reserved = connection.exec_driver_sql(
        _RESERVED, (request.expert_id, request.campaign_id, count)
    ).all()
    # Several open slots of one sample lie side by side, so five times as many rows are enough.
    open_rows = connection.exec_driver_sql(*_open_query(request, 5 * count)).all()
    slots = [_slot_of(row) for row in (*reserved, *open_rows)]
    return choose_slots(slots, expert_id=request.expert_id, count=count, now=request.now)


def _open_query(request: LeaseRequest, limit: int) -> tuple[str, tuple[object, ...]]:
    languages = ""
    if request.languages:
        places = ", ".join("?" * len(request.languages))
        languages = f"AND (language = '' OR language IN ({places}))"
    expert = (request.campaign_id, request.expert_id, request.expert_id, request.now)
    return _OPEN.format(languages=languages), (*expert, *request.languages, limit)


def _slot_of(row: Any) -> Slot:
    slot_id, subject_id, state, priority, reserved_for, expert_id, lease_until = row
    return Slot(
        slot_id, subject_id, SlotState(state), priority, reserved_for, expert_id, lease_until or 0.0
    )


def _take(connection: Connection, request: LeaseRequest, slot_ids: Sequence[int]) -> None:
    connection.exec_driver_sql(
        "UPDATE slot SET state = 1, expert_id = ?, lease_id = ?, lease_until = ? "
        "WHERE slot_id = ? AND state = 0",
        [
            (request.expert_id, secrets.token_hex(16), request.until, slot_id)
            for slot_id in slot_ids
        ],
    )


def _renew(connection: Connection, slot_ids: Sequence[int]) -> None:
    connection.exec_driver_sql(
        "UPDATE slot SET lease_id = ? WHERE slot_id = ?",
        [(secrets.token_hex(16), slot_id) for slot_id in slot_ids],
    )


def _load(connection: Connection, slot_ids: Sequence[int]) -> tuple[QueuedItem, ...]:
    rows = connection.execute(
        select(
            item,
            item_content.c.sealed,
            slot.c.slot_id,
            slot.c.lease_id,
            slot.c.lease_until,
            slot.c.priority,
        )
        .join(slot, slot.c.item_number == item.c.item_number)
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .where(slot.c.slot_id.in_(slot_ids))
    ).all()
    by_slot = {row.slot_id: row for row in rows}
    return tuple(_queued(by_slot[slot_id]) for slot_id in slot_ids if slot_id in by_slot)


def _queued(row: Row[tuple[object, ...]]) -> QueuedItem:
    return QueuedItem(
        item_id=row.item_id,
        lease_id=row.lease_id,
        lease_until=row.lease_until,
        kind=row.kind,
        sealed=row.sealed,
        probabilities=row.probabilities,
        suggestion_index=row.suggestion_index,
        confidence=row.confidence,
        prototype_class=row.prototype_class,
        model_version=row.model_version,
        margin=row.margin,
        reason=row.grant_reason,
        language=row.language,
        mask_level=row.mask_level,
        mask_spans=tuple((s, e, name) for s, e, name in json.loads(row.mask_spans)),
        candidate_id=row.candidate_id,
        content_sha256=row.content_sha256,
        priority=row.priority,
        schema_version=row.schema_version,
    )


def without_suggestions(queued: tuple[QueuedItem, ...]) -> tuple[QueuedItem, ...]:
    """Returns items as experts see them who answer blind to the model."""
    return tuple(
        replace(
            entry, suggestion_index=None, confidence=None, prototype_class=None, probabilities=b""
        )
        for entry in queued
    )


def unseal_item(keys: KeyRing, campaign_id: bytes, item_id: bytes, sealed: bytes) -> bytes:
    """Opens an item's content."""
    return keys.unseal(campaign_id, b"item\0" + item_id, sealed)


def release(connection: Connection, expert_id: int, lease_ids: Sequence[str]) -> int:
    """Gives leases back before their time. Returns how many were the expert's own."""
    result = connection.execute(
        update(slot)
        .where(
            slot.c.state == SlotState.LEASED.value,
            slot.c.expert_id == expert_id,
            slot.c.lease_id.in_(lease_ids),
        )
        .values(state=SlotState.OPEN.value, expert_id=None, lease_id=None, lease_until=None)
    )
    return result.rowcount


def skip(connection: Connection, expert_id: int, item_id: bytes, now: float) -> int:
    """Gives an item back and keeps it from the expert for a day. Returns how many, 0 or 1."""
    held = connection.execute(
        select(slot.c.slot_id, slot.c.subject_id)
        .join(item, item.c.item_number == slot.c.item_number)
        .where(
            item.c.item_id == item_id,
            slot.c.expert_id == expert_id,
            slot.c.state == SlotState.LEASED.value,
        )
    ).first()
    if held is None:
        return 0
    put_off = insert(skip_rows).values(
        expert_id=expert_id, subject_id=held.subject_id, until=now + SKIP_SECONDS
    )
    connection.execute(
        put_off.on_conflict_do_update(
            index_elements=[skip_rows.c.expert_id, skip_rows.c.subject_id],
            set_={"until": now + SKIP_SECONDS},
        )
    )
    connection.execute(
        update(slot)
        .where(slot.c.slot_id == held.slot_id)
        .values(state=SlotState.OPEN.value, expert_id=None, lease_id=None, lease_until=None)
    )
    event = audit.Event(f"person:{expert_id}", "item.skipped", item_id.hex())
    audit.append(connection, now, event)
    return 1


def extend(connection: Connection, expert_id: int, until: float) -> int:
    """Extends all leases of an expert. Returns how many there are."""
    result = connection.execute(
        update(slot)
        .where(slot.c.state == SlotState.LEASED.value, slot.c.expert_id == expert_id)
        .values(lease_until=until)
    )
    return result.rowcount


def held_count(connection: Connection, expert_id: int) -> int:
    """Returns how many items an expert holds now."""
    return len(
        connection.execute(
            select(slot.c.slot_id).where(
                slot.c.state == SlotState.LEASED.value, slot.c.expert_id == expert_id
            )
        ).all()
    )


def lease_proof(secret: bytes, *, expert_id: int, item_id: bytes, lease_id: str) -> str:
    """Returns a lease id that still proves, once the lease is over, who held which item.

    Args:
        secret: The portal's own key.
        expert_id: Holder.
        item_id: 16 bytes.
        lease_id: 32 hex digits.

    >>> lease_proof(b"k", expert_id=1, item_id=bytes(16), lease_id="ab" * 16)[:36]
    'abababababababababababababababab.18d'
    """
    message = f"{expert_id}:{item_id.hex()}:{lease_id}".encode()
    return f"{lease_id}.{hmac.new(secret, message, hashlib.sha256).hexdigest()[:32]}"
