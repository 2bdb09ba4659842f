"""Hidden checks in an expert's queue. They look like any other item."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

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
from review_portal.store.tables import item, label, slot

if TYPE_CHECKING:
    from review_portal.store.queue import LeaseRequest, QueuedItem

FIRST_PRIORITY = -1

# Written out for the same reasons as in `store.queue`. Indices are named where SQLite, which knows
# nothing of how rare gold is, chose to walk over all items of a large campaign instead.
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
    "FROM item INDEXED BY item_gold WHERE campaign_id = ? AND is_gold = 1 "
    "AND NOT EXISTS (SELECT 1 FROM slot "
    "WHERE slot.subject_id = item.candidate_id AND slot.expert_id = ? "
    "AND (slot.purpose <> 'gold' OR slot.state = 1)) "
    "AND seen < ? ORDER BY seen, random() LIMIT ?"
)

_REPEATABLE = (
    "SELECT min(annotation_id) AS oldest, (SELECT annotation_id FROM annotation "
    "WHERE expert_id = ?1 ORDER BY annotation_id DESC LIMIT 1 OFFSET ?2) AS newest "
    "FROM annotation WHERE expert_id = ?1"
)
_EARLIER = (
    "SELECT item.item_number, item.campaign_id, item.candidate_id "
    "FROM annotation INDEXED BY annotation_by_expert "
    "CROSS JOIN item ON item.item_number = annotation.item_number "
    "CROSS JOIN item_content ON item_content.item_number = item.item_number "
    "WHERE annotation.expert_id = ?1 AND annotation.campaign_id = ?2 "
    "AND annotation.annotation_id <= ?3 AND annotation.created_at <= ?4 "
    "AND annotation.purpose = 'work' AND annotation.class_index IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM slot AS again WHERE again.item_number = annotation.item_number "
    "AND again.expert_id = ?1 AND again.purpose = 'repeat') "
    "ORDER BY annotation.annotation_id DESC LIMIT 1"
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
    me = (request.expert_id, request.campaign_id)
    ends = connection.exec_driver_sql(_REPEATABLE, (request.expert_id, REPEAT_DISTANCE)).one()
    found: dict[int, _Check] = {}
    for _ in range(count):
        if ends.newest is None:
            break
        # Somewhere among the expert's own answers, then back to the next one that may come again:
        # drawing among all of them would read all of them.
        start = random.SystemRandom().randint(ends.oldest, ends.newest)
        for upper in (start, ends.newest):
            before = request.now - REPEAT_AFTER_SECONDS
            row = connection.exec_driver_sql(_EARLIER, (*me, upper, before)).first()
            if row is not None and row.item_number not in found:
                found[row.item_number] = _Check(
                    row.item_number, row.campaign_id, row.candidate_id, Purpose.REPEAT
                )
                break
    return list(found.values())


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
