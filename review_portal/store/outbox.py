"""Outcomes that wait for the coordinator, written together with the label they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from review_portal.store import site_totals
from review_portal.store.tables import outbox

FINAL_STATES = frozenset({"LABELED", "ABSTAINED", "EXPIRED", "DECLINED", "REFUSED"})


@dataclass(frozen=True)
class OutcomeRow:
    """One outcome.

    Attributes:
        grant_id: 16 bytes.
        campaign_id: 16 bytes.
        state: RELEASED or a final state.
        suggestion_verdict: 0 unknown, 1 the suggestion stood, 2 it was corrected.
        decision_seconds: 0 to 3600.
        class_index_plus_one: 0 when the site forbids it or there is none.
        outbox_id: Its place; 0 for a new one.
    """

    grant_id: bytes
    campaign_id: bytes
    state: str
    suggestion_verdict: int = 0
    decision_seconds: int = 0
    class_index_plus_one: int = 0
    outbox_id: int = 0


def put(connection: Connection, row: OutcomeRow, *, send_after: float) -> None:
    """Queues an outcome. The first final one of a grant holds; later ones change nothing."""
    added = connection.execute(
        insert(outbox)
        .values(
            grant_id=row.grant_id,
            campaign_id=row.campaign_id,
            state=row.state,
            is_final=row.state in FINAL_STATES,
            suggestion_verdict=row.suggestion_verdict,
            decision_seconds=row.decision_seconds,
            class_index_plus_one=row.class_index_plus_one,
            send_after=send_after,
        )
        .on_conflict_do_nothing()
    )
    if added.rowcount == 1:
        _count(connection, row, 1)


def _count(connection: Connection, row: OutcomeRow, change: int) -> None:
    site_totals.note_left(connection, row.campaign_id, row.state, "total", change)
    if row.class_index_plus_one:
        site_totals.note_left(connection, row.campaign_id, row.state, "named", change)


def take_back(connection: Connection, grant_id: bytes) -> str | None:
    """Removes a final outcome that was not sent yet.

    Returns:
        None when nothing stands any more; the state when it may have been counted already.
    """
    found = connection.execute(
        select(outbox).where(outbox.c.grant_id == grant_id, outbox.c.is_final)
    ).first()
    if found is None:
        return None
    if found.claimed_at is not None:
        return str(found.state)
    connection.execute(delete(outbox).where(outbox.c.grant_id == grant_id, outbox.c.is_final))
    gone = OutcomeRow(
        grant_id, found.campaign_id, found.state, class_index_plus_one=found.class_index_plus_one
    )
    _count(connection, gone, -1)
    return None


def claim(connection: Connection, now: float, *, count: int = 1000) -> tuple[OutcomeRow, ...]:
    """Takes outcomes that are due. Rows that were claimed but never answered come again."""
    rows = connection.execute(
        select(outbox)
        .where(
            outbox.c.sent_at.is_(None),
            or_(outbox.c.send_after <= now, outbox.c.claimed_at.is_not(None)),
        )
        .order_by(outbox.c.outbox_id)
        .limit(count)
    ).all()
    ids = [row.outbox_id for row in rows]
    if ids:
        connection.execute(update(outbox).where(outbox.c.outbox_id.in_(ids)).values(claimed_at=now))
    return tuple(
        OutcomeRow(
            grant_id=row.grant_id,
            campaign_id=row.campaign_id,
            state=row.state,
            suggestion_verdict=row.suggestion_verdict,
            decision_seconds=row.decision_seconds,
            class_index_plus_one=row.class_index_plus_one,
            outbox_id=row.outbox_id,
        )
        for row in rows
    )


def mark_sent(connection: Connection, answered: Sequence[tuple[int, str]], now: float) -> None:
    """Notes what the coordinator answered, as (outbox id, state)."""
    for outbox_id, state in answered:
        row = connection.execute(
            update(outbox)
            .where(outbox.c.outbox_id == outbox_id, outbox.c.sent_at.is_(None))
            .values(sent_at=now, answered_state=state)
            .returning(outbox.c.campaign_id, outbox.c.state)
        ).first()
        if row is not None:
            site_totals.note_left(connection, row.campaign_id, row.state, "sent")


def waiting_count(connection: Connection) -> int:
    """Returns how many outcomes wait."""
    counted = connection.exec_driver_sql(
        "SELECT coalesce(sum(CASE WHEN name GLOB 'left.*.total' THEN value ELSE -value END), 0) "
        "FROM counter WHERE name GLOB 'left.*.total' OR name GLOB 'left.*.sent'"
    )
    return int(counted.scalar_one())
