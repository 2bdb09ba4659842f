"""Answers become labels: annotation, label, outcome and audit row in one transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from review_portal.core.model import (
    Answer,
    Campaign,
    Decision,
    ItemState,
    Purpose,
    Receipt,
    Refusal,
    SlotState,
)
from review_portal.store import audit, notes, present, settling, texts_seen
from review_portal.store.campaigns import find_campaign
from review_portal.store.database import insert_row
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import annotation, item, slot

REASON_CODES = ("unclear", "out_of_scope", "needs_specialist", "personal_information")
FINAL_UNLABELED = frozenset({ItemState.EXPIRED.value, ItemState.DECLINED.value})


@dataclass(frozen=True)
class Desk:
    """Where and when an expert decides.

    Attributes:
        expert_id: Who decides.
        now: Seconds since the epoch.
        keys: Seals notes.
        outcome_delay_seconds: How long an outcome waits, so that an undo costs nothing.
        held_before: True when a lease proof shows that the expert was given this item.
        batch_token: Ties decisions that were made with one key.
    """

    expert_id: int
    now: float
    keys: KeyRing
    outcome_delay_seconds: float = 0.0
    held_before: bool = False
    batch_token: str = ""


# Built once: building a statement costs more than running it.
_ITEM = select(item).where(item.c.item_id == bindparam("item_id"))
_REPEATED = (
    select(annotation.c.annotation_id, item.c.state)
    .join(item, item.c.item_number == annotation.c.item_number)
    .where(
        annotation.c.expert_id == bindparam("expert"),
        annotation.c.client_token == bindparam("token"),
    )
)
_HELD = select(slot).where(
    slot.c.item_number == bindparam("number"),
    slot.c.state == SlotState.LEASED.value,
    slot.c.expert_id == bindparam("expert"),
    slot.c.lease_id == func.coalesce(bindparam("lease"), slot.c.lease_id),
)


def check_answer(campaign: Campaign, answer: Answer) -> Refusal | None:
    """Returns why an answer does not fit the campaign's classes, or None."""
    indices = [*answer.class_indices, *(index for _, _, index in answer.spans)]
    if answer.class_index is not None:
        indices.append(answer.class_index)
    if any(not 0 <= index < len(campaign.classes) for index in indices):
        return Refusal(
            "CLASS_UNKNOWN",
            f"campaign {campaign.name} has classes 0 to {len(campaign.classes) - 1}; "
            "reload the page",
        )
    return None


@dataclass(frozen=True)
class Placement:
    """What a decision is about.

    Attributes:
        campaign: Campaign of the item.
        row: The item's row.
        purpose: Why the answer was wanted.
        slot_id: The slot that it fills; None when it fills none.
    """

    campaign: Campaign
    row: Any
    purpose: Purpose
    slot_id: int | None = None


def record(connection: Connection, desk: Desk, decision: Decision) -> Receipt | Refusal:
    """Stores a decision and whatever follows from it.

    A repeat of the same client token changes nothing and gets the first receipt. An answer whose
    lease was lost is never thrown away: it takes a free slot of its item, or is kept as late.

    Returns:
        A receipt once everything is written, or a refusal that changed nothing.
    """
    repeated = _repeated(connection, desk, decision)
    if repeated is not None:
        return repeated
    row = connection.execute(_ITEM, {"item_id": decision.item_id}).first()
    campaign = None if row is None else find_campaign(connection, row.campaign_id)
    if row is None or campaign is None:
        return Refusal("ITEM_UNKNOWN", "there is no such item; fetch the queue again")
    seen = texts_seen.follow(connection, row, decision)
    moved = seen if isinstance(seen, Refusal) else present.decision_of(connection, campaign, seen)
    if isinstance(moved, Refusal):
        return moved
    decision = moved
    refused = check_answer(campaign, decision.answer)
    if refused is not None:
        return refused
    found = _slot_for(connection, desk, row, decision)
    if isinstance(found, Refusal):
        return found
    placement = Placement(campaign, row, Purpose.LATE)
    if found is not None:
        placement = Placement(campaign, row, Purpose(found.purpose), found.slot_id)
    return _store(connection, desk, decision, placement)


def _repeated(connection: Connection, desk: Desk, decision: Decision) -> Receipt | None:
    first = connection.execute(
        _REPEATED, {"expert": desk.expert_id, "token": decision.client_token}
    ).first()
    return None if first is None else Receipt("duplicate", first.state, first.annotation_id)


def _slot_for(
    connection: Connection, desk: Desk, row: Row[tuple[object, ...]], decision: Decision
) -> Row[tuple[object, ...]] | Refusal | None:
    """Finds the slot that a decision fills; None when it is late."""
    lease_id = decision.lease_id.partition(".")[0] if decision.lease_id else None
    held = connection.execute(
        _HELD, {"number": row.item_number, "expert": desk.expert_id, "lease": lease_id}
    ).first()
    if held is None and desk.held_before:
        # The lease got a new id since, in another page of the same expert.
        anew = {"number": row.item_number, "expert": desk.expert_id, "lease": None}
        held = connection.execute(_HELD, anew).first()
    if held is not None:
        return held
    if not desk.held_before and not _answered_before(connection, desk, row.item_number):
        return Refusal("NOT_LEASED", "you do not hold this item; fetch the queue again")
    return connection.execute(
        select(slot)
        .where(
            slot.c.item_number == row.item_number,
            slot.c.state == SlotState.OPEN.value,
            slot.c.reserved_for.is_(None) | (slot.c.reserved_for == desk.expert_id),
        )
        .order_by(slot.c.reserved_for.desc())
    ).first()


def _answered_before(connection: Connection, desk: Desk, item_number: int) -> bool:
    earlier = select(annotation.c.annotation_id).where(
        annotation.c.item_number == item_number, annotation.c.expert_id == desk.expert_id
    )
    return connection.execute(earlier.limit(1)).first() is not None


def _store(connection: Connection, desk: Desk, decision: Decision, placement: Placement) -> Receipt:
    row = placement.row
    annotation_id = insert_annotation(connection, desk, decision, placement)
    _fill_slot(connection, desk, placement)
    if decision.note:
        where = notes.NotePlace(row.campaign_id, row.item_number, desk.expert_id, desk.now)
        text = notes.NoteText(decision.note, decision.answer.class_index)
        notes.put(connection, desk.keys, where, text)
    is_late = placement.purpose is Purpose.LATE
    event = audit.Event(
        f"person:{desk.expert_id}",
        "item.annotated",
        row.item_id.hex(),
        {"annotation": annotation_id, "answer": decision.answer.key, "late": is_late},
    )
    audit.append(connection, desk.now, event)
    state = row.state
    if placement.purpose is Purpose.WORK and state not in FINAL_UNLABELED:
        state = settling.settle_item(
            connection, row.item_number, now=desk.now, delay_seconds=desk.outcome_delay_seconds
        )
    return Receipt("late" if is_late else "stored", state, annotation_id)


def _fill_slot(connection: Connection, desk: Desk, placement: Placement) -> None:
    if placement.slot_id is not None:
        connection.exec_driver_sql(
            "UPDATE slot SET state = 2, expert_id = ?, lease_id = NULL, lease_until = NULL "
            "WHERE slot_id = ?",
            (desk.expert_id, placement.slot_id),
        )


def insert_annotation(
    connection: Connection, desk: Desk, decision: Decision, placement: Placement
) -> int:
    """Adds an annotation. Returns its number."""
    row, campaign = placement.row, placement.campaign
    abstained = decision.answer.key is None
    return insert_row(
        connection,
        annotation.insert().values(
            item_number=row.item_number,
            campaign_id=row.campaign_id,
            slot_id=placement.slot_id,
            expert_id=desk.expert_id,
            purpose=placement.purpose.value,
            schema_version=campaign.schema_version,
            guideline_digest=hashlib.sha256(campaign.guideline.encode()).digest(),
            class_index=decision.answer.class_index,
            answer_key=decision.answer.key,
            reason_code=(decision.reason_code or "unclear") if abstained else "",
            suggestion_index=present.suggestion_of(connection, row),
            confidence=row.confidence,
            model_version=row.model_version,
            suggestion_shown=decision.suggestion_shown and row.suggestion_index is not None,
            seconds=min(max(decision.seconds, 0.0), 3600.0),
            client_token=decision.client_token,
            batch_token=desk.batch_token,
            created_at=desk.now,
        ),
    )


def undo(
    connection: Connection,
    desk: Desk,
    *,
    client_token: str,
    of_token: str | None,
    until: float,
) -> Receipt | Refusal:
    """Takes back the expert's last decision, or the one of `of_token` among the last 20.

    Nothing is deleted: a row that withdraws the annotation is added, the label that followed from
    it is superseded, and the item is leased to the expert again.
    """
    repeated = connection.execute(
        select(annotation.c.annotation_id, annotation.c.withdraws).where(
            annotation.c.expert_id == desk.expert_id, annotation.c.client_token == client_token
        )
    ).first()
    if repeated is not None:
        return Receipt("duplicate", ItemState.OPEN.value, repeated.withdraws or 0)
    target = _undoable(connection, desk, of_token)
    if target is None:
        return Refusal("NOTHING_TO_UNDO", "none of your last 20 decisions here can be taken back")
    refused = settling.reopen_item(connection, target.item_number, now=desk.now)
    if refused is not None:
        return refused
    _withdraw(connection, target, client_token=client_token, now=desk.now)
    notes.take_back(connection, target)
    if target.slot_id is not None:
        connection.execute(
            update(slot)
            .where(slot.c.slot_id == target.slot_id)
            .values(
                state=SlotState.LEASED.value,
                expert_id=desk.expert_id,
                lease_id=hashlib.sha256(client_token.encode()).hexdigest()[:32],
                lease_until=until,
            )
        )
    event = audit.Event(
        f"person:{desk.expert_id}", "annotation.withdrawn", str(target.annotation_id)
    )
    audit.append(connection, desk.now, event)
    return Receipt("stored", ItemState.OPEN.value, target.annotation_id)


def _undoable(
    connection: Connection, desk: Desk, of_token: str | None
) -> Row[tuple[object, ...]] | None:
    withdrawn = select(annotation.c.withdraws).where(
        annotation.c.expert_id == desk.expert_id, annotation.c.withdraws.is_not(None)
    )
    recent = connection.execute(
        select(annotation)
        .where(
            annotation.c.expert_id == desk.expert_id,
            annotation.c.withdraws.is_(None),
            annotation.c.purpose != Purpose.LATE.value,
            annotation.c.annotation_id.not_in(withdrawn),
        )
        .order_by(annotation.c.annotation_id.desc())
        .limit(20)
    ).all()
    for row in recent:
        if of_token in {None, row.client_token}:
            return row
    return None


def _withdraw(
    connection: Connection, target: Row[tuple[object, ...]], *, client_token: str, now: float
) -> None:
    connection.execute(
        annotation.insert().values(
            item_number=target.item_number,
            campaign_id=target.campaign_id,
            slot_id=target.slot_id,
            expert_id=target.expert_id,
            purpose=target.purpose,
            schema_version=target.schema_version,
            guideline_digest=target.guideline_digest,
            model_version=target.model_version,
            suggestion_shown=False,
            seconds=0.0,
            client_token=client_token,
            withdraws=target.annotation_id,
            reason_code="withdrawn",
            created_at=now,
        )
    )


def standing(connection: Connection, item_number: int) -> tuple[Row[tuple[object, ...]], ...]:
    """Returns the annotations of an item that were not withdrawn, oldest first."""
    return settling.standing_annotations(connection, item_number)
