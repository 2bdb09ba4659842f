"""From standing annotations to a label, and back when an expert takes an answer back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, bindparam, select, update

from review_portal.core.model import NOTHING, ItemState, Origin, Purpose, Refusal, Settlement
from review_portal.core.settlement import AllAbstained, Dispute, Settled, Waiting, settle
from review_portal.store import counters, items, outbox, present
from review_portal.store.campaigns import settings_of
from review_portal.store.database import insert_row
from review_portal.store.tables import annotation, item, label

STOOD, CORRECTED = 1, 2
GOLD_AGREEMENT_COUNT = 3
"""Experts who must agree before an item may check others."""


@dataclass(frozen=True)
class NewLabel:
    """A label on its way into the store.

    Attributes:
        answer_key: The answer; its first class is the label's class.
        settlement: How it came to be.
        origin: Who made it.
        annotation_ids: Annotations behind it.
        seconds: Median seconds of the decisions behind it.
    """

    answer_key: str
    settlement: Settlement
    origin: Origin
    annotation_ids: tuple[int, ...] = ()
    seconds: float = 0.0


def class_of(answer_key: str) -> int | None:
    """Returns the class of an answer; the first one of a multiple choice, None for spans.

    >>> class_of("3"), class_of("1,4"), class_of("0-3:2"), class_of("none")
    (3, 1, None, None)
    """
    if ":" in answer_key or answer_key == NOTHING:
        return None
    return int(answer_key.partition(",")[0])


# Built once: building a statement costs more than running it.
_ANNOTATIONS = (
    select(annotation)
    .where(annotation.c.item_number == bindparam("number"))
    .order_by(annotation.c.annotation_id)
)
_ITEM = select(item).where(item.c.item_number == bindparam("number"))
_OLDER = select(label).where(
    label.c.item_number == bindparam("number"),
    label.c.superseded_by.is_(None),
    label.c.label_id != bindparam("newest"),
)


def standing_annotations(
    connection: Connection, item_number: int
) -> tuple[Row[tuple[object, ...]], ...]:
    """Returns the annotations of an item that were not withdrawn, oldest first."""
    rows = connection.execute(_ANNOTATIONS, {"number": item_number}).all()
    gone = {row.withdraws for row in rows}
    return tuple(r for r in rows if r.withdraws is None and r.annotation_id not in gone)


def settle_item(
    connection: Connection, item_number: int, *, now: float, delay_seconds: float
) -> str:
    """Applies `core.settlement.settle` to an item and records what it decides.

    Answers of an older label schema count as what the present one calls them; one whose class
    went counts as "can't tell".

    Returns:
        The item's state after it.
    """
    row = connection.execute(_ITEM, {"number": item_number}).one()
    answers = [
        a for a in standing_annotations(connection, item_number) if a.purpose == Purpose.WORK.value
    ]
    majority = settings_of(connection, row.campaign_id).majority
    keys = [present.key_of(connection, a) for a in answers]
    verdict = settle(keys, row.wanted_count, majority=majority)
    match verdict:
        case Waiting():
            return str(row.state)
        case Settled(answer_key, settlement):
            new = NewLabel(
                answer_key,
                settlement,
                Origin.EXPERT,
                tuple(a.annotation_id for a in answers),
                _median([a.seconds for a in answers]),
            )
            put_label(connection, row, new, now=now, send_after=now + delay_seconds)
            if settlement is Settlement.AGREEMENT and len(answers) >= GOLD_AGREEMENT_COUNT:
                mark_gold(connection, item_number)
            return ItemState.LABELED.value
        case Dispute():
            items.change_state(connection, item_number, ItemState.DISPUTED)
            return ItemState.DISPUTED.value
        case AllAbstained():
            _abstain(connection, row, answers, send_after=now + delay_seconds)
            return ItemState.ABSTAINED.value


def _abstain(
    connection: Connection,
    row: Row[tuple[object, ...]],
    answers: Sequence[Row[tuple[object, ...]]],
    *,
    send_after: float,
) -> None:
    items.change_state(connection, row.item_number, ItemState.ABSTAINED)
    if row.grant_id is not None:
        seconds = round(_median([a.seconds for a in answers]))
        ended = outbox.OutcomeRow(
            row.grant_id, row.campaign_id, ItemState.ABSTAINED.value, decision_seconds=seconds
        )
        outbox.put(connection, ended, send_after=send_after)


def put_label(
    connection: Connection,
    row: Row[tuple[object, ...]],
    new: NewLabel,
    *,
    now: float,
    send_after: float,
) -> int:
    """Adds a label, supersedes the one before, queues the outcome.

    Returns:
        Id of the label.
    """
    class_index = class_of(new.answer_key)
    label_id = _insert(connection, row, new, class_index, now)
    items.change_state(connection, row.item_number, ItemState.LABELED)
    name = counters.label_name(row.split, class_index, new.origin.value)
    counters.bump(connection, row.campaign_id, name)
    if row.grant_id is not None:
        shared = settings_of(connection, row.campaign_id).share_class_index
        verdict = 0
        if new.origin is Origin.EXPERT and row.suggestion_index is not None:
            suggested = present.suggestion_of(connection, row)
            verdict = STOOD if class_index == suggested else CORRECTED
        outcome = outbox.OutcomeRow(
            row.grant_id,
            row.campaign_id,
            ItemState.LABELED.value,
            suggestion_verdict=verdict,
            decision_seconds=round(new.seconds),
            class_index_plus_one=class_index + 1 if shared and class_index is not None else 0,
        )
        outbox.put(connection, outcome, send_after=send_after)
    return label_id


def _insert(
    connection: Connection,
    row: Row[tuple[object, ...]],
    new: NewLabel,
    class_index: int | None,
    now: float,
) -> int:
    label_id = insert_row(
        connection,
        label.insert().values(
            item_number=row.item_number,
            campaign_id=row.campaign_id,
            split=row.split,
            class_index=class_index,
            answer_key=new.answer_key,
            schema_version=present.version_of(connection, row.campaign_id),
            settlement=new.settlement.value,
            origin=new.origin.value,
            annotation_ids=json.dumps(new.annotation_ids),
            model_version=row.model_version,
            suggestion_index=present.suggestion_of(connection, row),
            confidence=row.confidence,
            grant_id=row.grant_id,
            created_at=now,
        ),
    )
    _supersede(connection, row.item_number, label_id)
    return label_id


def _supersede(connection: Connection, item_number: int, label_id: int) -> None:
    older = connection.execute(_OLDER, {"number": item_number, "newest": label_id}).all()
    for row in older:
        connection.execute(
            update(label).where(label.c.label_id == row.label_id).values(superseded_by=label_id)
        )
        if row.settlement != Settlement.WITHDRAWN.value:
            name = counters.label_name(row.split, row.class_index, row.origin)
            counters.bump(connection, row.campaign_id, name, -1)


def mark_gold(connection: Connection, item_number: int) -> None:
    """Lets an item that was settled beyond doubt check other experts."""
    connection.execute(update(item).where(item.c.item_number == item_number).values(is_gold=True))


def reopen_item(connection: Connection, item_number: int, *, now: float) -> Refusal | None:
    """Opens an item again because an answer to it was taken back.

    Returns:
        A refusal that changed nothing when the item ended in a way that cannot be undone.
    """
    row = connection.execute(select(item).where(item.c.item_number == item_number)).one()
    if row.state in {ItemState.EXPIRED.value, ItemState.DECLINED.value}:
        return Refusal("ITEM_ENDED", "this item has ended meanwhile; nothing to take back")
    if row.state == ItemState.HELD.value:
        return Refusal("ITEM_HELD", "the site lead looks at this item first; nothing to take back")
    if _is_adjudicated(connection, item_number):
        return Refusal("ADJUDICATED", "an adjudicator has settled this item already")
    if row.grant_id is not None and row.state in {"LABELED", "ABSTAINED"}:
        counted = outbox.take_back(connection, row.grant_id)
        # The coordinator has given the budget of an abstention to another item already.
        if counted == ItemState.ABSTAINED.value:
            return Refusal("OUTCOME_SENT", "the coordinator has counted this abstention already")
    if row.state == ItemState.LABELED.value:
        withdrawn = NewLabel("-1", Settlement.WITHDRAWN, Origin.EXPERT)
        _insert(connection, row, withdrawn, None, now)
    items.change_state(connection, item_number, ItemState.OPEN)
    return None


def _is_adjudicated(connection: Connection, item_number: int) -> bool:
    settlements = connection.execute(
        select(label.c.settlement).where(
            label.c.item_number == item_number, label.c.superseded_by.is_(None)
        )
    ).scalars()
    return Settlement.ADJUDICATION.value in set(settlements)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
