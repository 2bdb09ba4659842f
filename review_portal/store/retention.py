"""What has an age limit: content of settled items, notes about them, keys of campaigns that ended.

Labels, answers, the ledger of outcomes and the audit log stay: they hold numbers and ids, no text.
Content that never came under a grant (imports) and hidden gold stay until the campaign's key goes.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection

from review_portal.store import audit
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import campaign
from review_portal.store.unmaskings import note_row

BATCH_ROWS = 200
_OLD = (
    "SELECT item.item_number, item.campaign_id FROM item "
    "JOIN item_content ON item_content.item_number = item.item_number "
    "WHERE item.state IN ('LABELED', 'ABSTAINED', 'EXPIRED', 'DECLINED') AND item.is_gold = 0 "
    "AND item.grant_id IS NOT NULL AND item.received_at < :before "
    "AND coalesce((SELECT max(label.created_at) FROM label "
    "WHERE label.item_number = item.item_number), item.received_at) < :before "
    "AND NOT EXISTS (SELECT 1 FROM slot WHERE slot.item_number = item.item_number "
    "AND slot.state IN (0, 1)) "
    "ORDER BY item.item_number LIMIT :count"
)


def count_old(connection: Connection, before: float) -> int:
    """Returns in how many items content is older than a moment (settled, or came in)."""
    return len(connection.exec_driver_sql(_OLD, {"before": before, "count": 1 << 40}).all())


def remove_old(
    connection: Connection, keys: KeyRing, *, before: float, actor: str, now: float
) -> int:
    """Removes content of up to `BATCH_ROWS` items that were settled before a moment.

    Returns:
        How many items lost their content; less than a batch when none is left.
    """
    # Freed pages are overwritten, which the portal otherwise does only where it costs nothing.
    connection.exec_driver_sql("PRAGMA secure_delete = ON")
    rows = connection.exec_driver_sql(_OLD, {"before": before, "count": BATCH_ROWS}).all()
    numbers = [(row.item_number,) for row in rows]
    if numbers:
        for table in ("item_content", "note"):
            connection.exec_driver_sql(
                f"DELETE FROM {table} WHERE item_number = ?",  # noqa: S608  names of this loop
                numbers,
            )
        _empty_questions(connection, keys, [row.item_number for row in rows])
    connection.exec_driver_sql("PRAGMA secure_delete = FAST")
    for campaign_id, count in Counter(row.campaign_id for row in rows).items():
        detail = {"items": count, "before": int(before)}
        event = audit.Event(actor, "retention.removed", campaign_id.hex(), detail)
        audit.append(connection, now, event)
    return len(rows)


def _empty_questions(connection: Connection, keys: KeyRing, numbers: list[int]) -> None:
    """Reasons of unmaskings may speak about the text; that somebody asked stays."""
    for number in numbers:
        asked = connection.exec_driver_sql(
            "SELECT unmasking_id, campaign_id FROM unmasking "
            "JOIN item ON item.item_number = unmasking.item_number "
            "WHERE unmasking.item_number = ?",
            (number,),
        ).all()
        for row in asked:
            empty = keys.seal(row.campaign_id, note_row(row.unmasking_id), b"")
            connection.exec_driver_sql(
                "UPDATE unmasking SET sealed_note = ? WHERE unmasking_id = ?",
                (empty, row.unmasking_id),
            )


def ended(connection: Connection, keys: KeyRing, *, before: float) -> tuple[bytes, ...]:
    """Returns campaigns that were completed before a moment and still have a key."""
    rows = connection.execute(
        campaign.select().where(campaign.c.state == "COMPLETED", campaign.c.updated_at < before)
    )
    return tuple(row.campaign_id for row in rows if keys.has(row.campaign_id))


def note_shredded(connection: Connection, *, campaign_id: bytes, actor: str, now: float) -> None:
    """Puts into the audit log that a campaign's key goes."""
    event = audit.Event(actor, "campaign.shredded", campaign_id.hex(), {"why": "age"})
    audit.append(connection, now, event)
