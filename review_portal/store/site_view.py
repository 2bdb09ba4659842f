"""What the site lead sees: what was asked, what left, how the work goes; and a yes or no."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Integer, cast, func, select

from review_portal.core.model import ItemState, Refusal
from review_portal.store import audit, counters, items, outbox, quality_tally, site_totals
from review_portal.store.quality_tally import Tally
from review_portal.store.tables import annotation, item, label

RECENT_DAYS = 14
SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Asked:
    """Items that one allocation asked for: same model version, reason and day.

    Attributes:
        day: Days since 1970-01-01 on which they came.
        model_version: Version whose scores led to it.
        reason: Why they were asked for.
        count: How many.
        held_count: Of these, waiting for the site lead.
    """

    day: int
    model_version: int
    reason: str
    count: int
    held_count: int


@dataclass(frozen=True)
class Left:
    """Outcomes of one kind that left the site, or wait to.

    Attributes:
        state: RELEASED, LABELED, ABSTAINED, EXPIRED, DECLINED.
        sent_count: Answered by the coordinator.
        waiting_count: Not yet.
        with_class_count: Of all, those that name the class.
    """

    state: str
    sent_count: int
    waiting_count: int
    with_class_count: int


@dataclass(frozen=True)
class DayOfWork:
    """What experts did on one day.

    Attributes:
        day: Days since 1970-01-01.
        decision_count: Decisions.
        seconds: Sum of active seconds.
    """

    day: int
    decision_count: int
    seconds: float


def asked(connection: Connection, campaign_id: bytes, limit: int = 30) -> tuple[Asked, ...]:
    """Returns what the federation asked of this site, newest first."""
    held = _held_counts(connection, campaign_id)
    keys = {}
    for name, count in counters.counts(connection, campaign_id).items():
        if name.startswith(site_totals.ASKED):
            day, version, reason = name.removeprefix(site_totals.ASKED).split(".", 2)
            keys[int(day), int(version), reason] = count
    newest = sorted(keys, key=lambda key: (-key[0], -key[1], key[2]))[:limit]
    return tuple(Asked(*key, keys[key], held.get(key, 0)) for key in newest)


def _held_counts(connection: Connection, campaign_id: bytes) -> dict[tuple[int, int, str], int]:
    day = cast(item.c.received_at / SECONDS_PER_DAY, Integer)
    rows = connection.execute(
        select(day, item.c.grant_model_version, item.c.grant_reason, func.count())
        .where(item.c.campaign_id == campaign_id, item.c.state == ItemState.HELD.value)
        .group_by(day, item.c.grant_model_version, item.c.grant_reason)
    )
    return {(int(d), version, reason): count for d, version, reason, count in rows}


def left(connection: Connection, campaign_id: bytes) -> tuple[Left, ...]:
    """Returns the outcomes that left the site, by state."""
    counted = counters.counts(connection, campaign_id)
    found = {}
    for name in counted:
        if name.startswith(site_totals.LEFT):
            state = name.removeprefix(site_totals.LEFT).partition(".")[0]
            total, sent, named = (
                counted.get(f"{site_totals.LEFT}{state}.{sort}", 0)
                for sort in ("total", "sent", "named")
            )
            if total:
                found[state] = Left(state, sent, total - sent, named)
    return tuple(found[state] for state in sorted(found))


def work_by_day(tally: Tally, now: float) -> tuple[DayOfWork, ...]:
    """Returns the decisions of the last 14 days that stand, oldest first."""
    took = dict(tally.of(quality_tally.DAY_MILLISECONDS))
    days = sorted((day, count) for (day,), count in tally.of(quality_tally.DAY))
    return tuple(
        DayOfWork(day, count, took.get((day,), 0) / 1000)
        for day, count in days
        if day > now // SECONDS_PER_DAY - RECENT_DAYS
    )


def waiting_seconds(connection: Connection, campaign_id: bytes, now: float) -> float:
    """Returns how long the oldest open item has waited, 0 when none waits."""
    oldest = connection.execute(
        select(item.c.received_at)
        .where(item.c.campaign_id == campaign_id, item.c.state == ItemState.OPEN.value)
        .order_by(item.c.item_number)
        .limit(1)
    ).scalar()
    return 0.0 if oldest is None else max(0.0, now - oldest)


def latency_seconds(connection: Connection, campaign_id: bytes) -> float:
    """Returns the median time from intake to label over the newest 500 labels, 0 without any."""
    rows = connection.execute(
        select(label.c.created_at - item.c.received_at)
        .join(item, item.c.item_number == label.c.item_number)
        .where(label.c.campaign_id == campaign_id, label.c.origin == "expert")
        .order_by(label.c.label_id.desc())
        .limit(500)
    ).scalars()
    ordered = sorted(float(value) for value in rows)
    return ordered[len(ordered) // 2] if ordered else 0.0


def release_held(connection: Connection, campaign_id: bytes, *, actor: str, now: float) -> int:
    """Lets all held items of a campaign through to the experts. Returns how many."""
    numbers = _held(connection, campaign_id)
    for number in numbers:
        items.change_state(connection, number, ItemState.OPEN)
        items.open_slots(connection, number)
    detail = {"count": len(numbers)}
    audit.append(
        connection, now, audit.Event(actor, "allocation.approved", campaign_id.hex(), detail)
    )
    return len(numbers)


def decline_held(connection: Connection, campaign_id: bytes, *, actor: str, now: float) -> int:
    """Declines all held items of a campaign; their budget goes back. Returns how many."""
    numbers = _held(connection, campaign_id)
    for number in numbers:
        items.end_unlabeled(connection, number, ItemState.DECLINED, now=now)
    detail = {"count": len(numbers)}
    audit.append(
        connection, now, audit.Event(actor, "allocation.declined", campaign_id.hex(), detail)
    )
    return len(numbers)


def _held(connection: Connection, campaign_id: bytes) -> list[int]:
    rows = connection.execute(
        select(item.c.item_number).where(
            item.c.campaign_id == campaign_id, item.c.state == ItemState.HELD.value
        )
    )
    return list(rows.scalars())


def decline_item(
    connection: Connection, item_id: bytes, *, actor: str, now: float
) -> Refusal | None:
    """Takes one item out, flagged ones above all; its budget goes back."""
    row = connection.execute(
        select(item.c.item_number, item.c.state).where(item.c.item_id == item_id)
    ).first()
    if row is None or row.state not in {"OPEN", "HELD", "DISPUTED"}:
        return Refusal("ITEM_ENDED", "this item has ended already")
    items.end_unlabeled(connection, row.item_number, ItemState.DECLINED, now=now)
    audit.append(connection, now, audit.Event(actor, "item.declined", item_id.hex()))
    return None


def unsent_count(connection: Connection) -> int:
    """Returns how many outcomes wait for the coordinator."""
    return outbox.waiting_count(connection)


def decided_today(connection: Connection, expert_id: int, now: float) -> int:
    """Returns how many decisions an expert has made since midnight UTC."""
    midnight = now - now % SECONDS_PER_DAY
    return connection.execute(
        select(func.count())
        .select_from(annotation)
        .where(
            annotation.c.expert_id == expert_id,
            annotation.c.created_at >= midnight,
            annotation.c.withdraws.is_(None),
        )
    ).scalar_one()
