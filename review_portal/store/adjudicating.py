"""Disputes and the decision that ends them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select

from review_portal.core.model import (
    Answer,
    Decision,
    ItemState,
    Origin,
    Purpose,
    Receipt,
    Refusal,
    Settlement,
)
from review_portal.store import audit, items, notes, settling
from review_portal.store.annotations import (
    Desk,
    Placement,
    check_answer,
    insert_annotation,
)
from review_portal.store.campaigns import find_campaign
from review_portal.store.present import parse_answer
from review_portal.store.tables import annotation, item, item_content

DISPUTES_MAX = 50


@dataclass(frozen=True)
class DisputedAnswer:
    """One of the answers that differ; who gave it is not said.

    Attributes:
        letter: A, B, C …
        answer_key: What was said; None for "can't tell".
        seconds: How long it took.
    """

    letter: str
    answer_key: str | None
    seconds: float


@dataclass(frozen=True)
class Dispute:
    """An item whose answers differ.

    Attributes:
        item_number: Row of the item.
        item_id: 16 bytes.
        kind: What it shows.
        sealed: Sealed content.
        mask_spans: (start, end, type) of what was masked.
        answers: What was said, oldest first.
        is_own: Whether the reader is among those who answered.
    """

    item_number: int
    item_id: bytes
    kind: str
    sealed: bytes
    mask_spans: tuple[tuple[int, int, str], ...]
    answers: tuple[DisputedAnswer, ...]
    is_own: bool


def disputes(
    connection: Connection, campaign_id: bytes, reader_id: int, *, now: float
) -> tuple[Dispute, ...]:
    """Returns open disputes, oldest first; the views are in the audit log."""
    rows = connection.execute(
        select(item, item_content.c.sealed)
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .where(item.c.campaign_id == campaign_id, item.c.state == ItemState.DISPUTED.value)
        .order_by(item.c.item_number)
        .limit(DISPUTES_MAX)
    ).all()
    found = []
    for row in rows:
        answers = settling.standing_annotations(connection, row.item_number)
        found.append(
            Dispute(
                item_number=row.item_number,
                item_id=row.item_id,
                kind=row.kind,
                sealed=row.sealed,
                mask_spans=tuple((s, e, name) for s, e, name in json.loads(row.mask_spans)),
                answers=tuple(
                    DisputedAnswer(chr(65 + place), a.answer_key, a.seconds)
                    for place, a in enumerate(answers)
                ),
                is_own=any(a.expert_id == reader_id for a in answers),
            )
        )
    events = [
        audit.Event(f"person:{reader_id}", "dispute.viewed", entry.item_id.hex()) for entry in found
    ]
    audit.append(connection, now, *events)
    return tuple(found)


def answer_of(connection: Connection, item_id: bytes, letter: str) -> Answer | None:
    """Returns the answer of a dispute that stands under a letter, or None without any."""
    number = items.find_item_number(connection, item_id)
    standing = () if number is None else settling.standing_annotations(connection, number)
    place = ord(letter) - 65
    return parse_answer(standing[place].answer_key) if place < len(standing) else None


def adjudicate(connection: Connection, desk: Desk, decision: Decision) -> Receipt | Refusal:
    """Ends a dispute with a label or with "nobody can tell"; earlier answers stay as they are."""
    repeated = connection.execute(
        select(annotation.c.annotation_id).where(
            annotation.c.expert_id == desk.expert_id,
            annotation.c.client_token == decision.client_token,
        )
    ).scalar()
    if repeated is not None:
        return Receipt("duplicate", ItemState.LABELED.value, repeated)
    row = connection.execute(select(item).where(item.c.item_id == decision.item_id)).first()
    campaign = None if row is None else find_campaign(connection, row.campaign_id)
    if row is None or campaign is None or row.state != ItemState.DISPUTED.value:
        return Refusal("NOT_DISPUTED", "this item is no longer in dispute; reload the page")
    answers = settling.standing_annotations(connection, row.item_number)
    refused = _refusal(desk, decision, [a.expert_id for a in answers])
    refused = refused or check_answer(campaign, decision.answer)
    if refused is not None:
        return refused
    placement = Placement(campaign, row, Purpose.ADJUDICATION)
    annotation_id = insert_annotation(connection, desk, decision, placement)
    place = notes.NotePlace(row.campaign_id, row.item_number, desk.expert_id, desk.now)
    text = notes.NoteText(decision.note, decision.answer.class_index)
    notes.put(connection, desk.keys, place, text)
    state = _conclude(connection, desk, decision.answer, row.item_number)
    event = audit.Event(
        f"person:{desk.expert_id}", "dispute.adjudicated", row.item_id.hex(),
        {"annotation": annotation_id, "answer": decision.answer.key},
    )  # fmt: skip
    audit.append(connection, desk.now, event)
    return Receipt("stored", state.value, annotation_id)


def _refusal(desk: Desk, decision: Decision, expert_ids: list[int]) -> Refusal | None:
    if desk.expert_id in expert_ids:
        return Refusal("OWN_ANSWER", "you gave one of the answers; somebody else must decide")
    if not decision.note.strip():
        return Refusal("NOTE_MISSING", "say why; others learn from it")
    return None


def _conclude(connection: Connection, desk: Desk, answer: Answer, item_number: int) -> ItemState:
    if answer.key is None:
        items.end_unlabeled(connection, item_number, ItemState.ABSTAINED, now=desk.now)
        return ItemState.ABSTAINED
    row = connection.execute(select(item).where(item.c.item_number == item_number)).one()
    ids = [a.annotation_id for a in settling.standing_annotations(connection, item_number)]
    label = settling.NewLabel(answer.key, Settlement.ADJUDICATION, Origin.EXPERT, tuple(ids), 0.0)
    settling.put_label(
        connection, row, label, now=desk.now, send_after=desk.now + desk.outcome_delay_seconds
    )
    settling.mark_gold(connection, item_number)
    return ItemState.LABELED
