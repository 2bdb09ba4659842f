"""Hidden checks in an expert's queue. They look like any other item."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, exists, func, select

from review_portal.core.checks import (
    GOLD_EXPOSURE_MAX,
    REPEAT_AFTER_SECONDS,
    REPEAT_DISTANCE,
    CheckRecord,
    CheckShares,
    disguise,
    plan_checks,
)
from review_portal.core.model import Purpose, SlotState
from review_portal.store.campaigns import CampaignSettings
from review_portal.store.database import insert_row
from review_portal.store.items import pack_probabilities, unpack_probabilities
from review_portal.store.tables import annotation, item, item_content, label, slot

if TYPE_CHECKING:
    from review_portal.store.queue import LeaseRequest, QueuedItem

FIRST_PRIORITY = -1

# Written out for the same reasons as in `store.queue`.
_RECORD = (
    "SELECT purpose, count(*) FROM slot WHERE campaign_id = ? AND expert_id = ? "
    "AND state IN (1, 2) GROUP BY purpose"
)
_USUAL = (
    "SELECT priority FROM slot WHERE campaign_id = ? AND state = 0 AND reserved_for IS NULL "
    "ORDER BY priority, slot_id LIMIT 1"
)
_GOLD = (
    "SELECT item_number, campaign_id, candidate_id, (SELECT count(*) FROM slot "
    "WHERE slot.subject_id = item.candidate_id AND slot.expert_id = ?) AS seen "
    "FROM item WHERE campaign_id = ? AND is_gold = 1 AND NOT EXISTS (SELECT 1 FROM slot "
    "WHERE slot.subject_id = item.candidate_id AND slot.expert_id = ? "
    "AND (slot.purpose <> 'gold' OR slot.state = 1)) "
    "AND seen < ? ORDER BY seen, random() LIMIT ?"
)


@dataclass(frozen=True)
class _Check:
    item_number: int
    campaign_id: bytes
    subject_id: bytes
    purpose: Purpose


def shares_of(settings: CampaignSettings) -> CheckShares:
    """Returns how much of an expert's queue is hidden checks."""
    return CheckShares(settings.gold_ratio, settings.gold_first_count, settings.repeat_ratio)


def record_of(connection: Connection, expert_id: int, campaign_id: bytes) -> CheckRecord:
    """Returns what an expert has done and holds in a campaign."""
    rows = connection.exec_driver_sql(_RECORD, (campaign_id, expert_id)).all()
    by_purpose: dict[str, int] = {purpose: total for purpose, total in rows}  # noqa: C416
    return CheckRecord(
        work_count=by_purpose.get(Purpose.WORK.value, 0),
        gold_count=by_purpose.get(Purpose.GOLD.value, 0),
        repeat_count=by_purpose.get(Purpose.REPEAT.value, 0),
    )


def lease_checks(
    connection: Connection, request: LeaseRequest, settings: CampaignSettings, count: int
) -> tuple[int, ...]:
    """Makes and leases the checks among an expert's next `count` items.

    Returns:
        Slot ids.
    """
    shares = shares_of(settings)
    if shares == CheckShares(0.0, 0, 0.0) or count <= 0:
        return ()
    record = record_of(connection, request.expert_id, request.campaign_id)
    gold_count, repeat_count = plan_checks(record, shares, count)
    first = record.gold_count < shares.gold_first_count
    made = [
        _lease(connection, request, check, FIRST_PRIORITY if first else _usual(connection, request))
        for check in _gold(connection, request, gold_count)
    ]
    made += [
        _lease(connection, request, check, _usual(connection, request))
        for check in _repeats(connection, request, repeat_count)
    ]
    return tuple(made)


def _usual(connection: Connection, request: LeaseRequest) -> int:
    found = connection.exec_driver_sql(_USUAL, (request.campaign_id,)).scalar()
    return 0 if found is None else int(found)


def _lease(connection: Connection, request: LeaseRequest, check: _Check, priority: int) -> int:
    return insert_row(
        connection,
        slot.insert().values(
            item_number=check.item_number,
            campaign_id=check.campaign_id,
            subject_id=check.subject_id,
            purpose=check.purpose.value,
            state=SlotState.LEASED.value,
            priority=priority,
            reserved_for=request.expert_id,
            expert_id=request.expert_id,
            lease_id=secrets.token_hex(16),
            lease_until=request.until,
        ),
    )


def _gold(connection: Connection, request: LeaseRequest, count: int) -> list[_Check]:
    if count <= 0:
        return []
    me = request.expert_id
    wanted = (me, request.campaign_id, me, GOLD_EXPOSURE_MAX, count)
    rows = connection.exec_driver_sql(_GOLD, wanted).all()
    return [_Check(r.item_number, r.campaign_id, r.candidate_id, Purpose.GOLD) for r in rows]


def _repeats(connection: Connection, request: LeaseRequest, count: int) -> list[_Check]:
    if count <= 0:
        return []
    distance = connection.execute(
        select(annotation.c.annotation_id)
        .where(annotation.c.expert_id == request.expert_id)
        .order_by(annotation.c.annotation_id.desc())
        .offset(REPEAT_DISTANCE)
        .limit(1)
    ).scalar()
    again = slot.alias("again")
    repeated = exists().where(
        again.c.item_number == annotation.c.item_number,
        again.c.expert_id == request.expert_id,
        again.c.purpose == Purpose.REPEAT.value,
    )
    rows = connection.execute(
        select(item.c.item_number, item.c.campaign_id, item.c.candidate_id)
        .join(annotation, annotation.c.item_number == item.c.item_number)
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .where(
            annotation.c.expert_id == request.expert_id,
            annotation.c.campaign_id == request.campaign_id,
            annotation.c.purpose == Purpose.WORK.value,
            annotation.c.class_index.is_not(None),
            annotation.c.annotation_id <= (distance or 0),
            annotation.c.created_at <= request.now - REPEAT_AFTER_SECONDS,
            ~repeated,
        )
        .order_by(func.random())
        .limit(count)
    ).all()
    return [_Check(r.item_number, r.campaign_id, r.candidate_id, Purpose.REPEAT) for r in rows]


def disguised(
    connection: Connection, queued: Sequence[QueuedItem], campaign_id: bytes
) -> tuple[QueuedItem, ...]:
    """Gives imported items among ordinary ones what those have: probabilities and a reason."""
    bare = [entry for entry in queued if not entry.probabilities]
    if not bare:
        return tuple(queued)
    model = next((entry for entry in queued if entry.probabilities), None)
    if model is None:
        return tuple(queued)
    known = _known_classes(connection, [entry.item_id for entry in bare], campaign_id)
    return tuple(
        _disguise_one(entry, model, known[entry.item_id]) if entry.item_id in known else entry
        for entry in queued
    )


def _known_classes(
    connection: Connection, item_ids: Sequence[bytes], campaign_id: bytes
) -> dict[bytes, int]:
    rows = connection.execute(
        select(item.c.item_id, label.c.class_index)
        .join(label, label.c.item_number == item.c.item_number)
        .where(
            item.c.item_id.in_(item_ids),
            item.c.is_gold,
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.class_index.is_not(None),
        )
    )
    return {row.item_id: row.class_index for row in rows}


def _disguise_one(entry: QueuedItem, model: QueuedItem, true_class: int) -> QueuedItem:
    chance = random.Random(entry.item_id)  # noqa: S311  a disguise, no secret
    values = disguise(unpack_probabilities(model.probabilities), true_class, chance)
    best = max(range(len(values)), key=values.__getitem__)
    return replace(
        entry,
        probabilities=pack_probabilities(values),
        suggestion_index=best,
        confidence=values[best],
        prototype_class=best if model.prototype_class is not None else None,
        model_version=model.model_version,
        margin=model.margin,
        reason=model.reason,
        language=entry.language or model.language,
        mask_level=model.mask_level,
    )
