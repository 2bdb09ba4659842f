"""What was asked of the site and what left it, as counts that grow with each event.

A page that counted rows would take seconds once there are a million.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection

from review_portal.store import counters

ASKED, LEFT = "asked.", "left."
SECONDS_PER_DAY = 86400

_ASKED_ROWS = (
    "SELECT campaign_id, CAST(received_at / 86400 AS INTEGER) AS day, grant_model_version, "
    "grant_reason, count(*) FROM item WHERE grant_id IS NOT NULL GROUP BY 1, 2, 3, 4"
)
_LEFT_ROWS = (
    "SELECT campaign_id, state, count(*), count(sent_at), "
    "coalesce(sum(class_index_plus_one > 0), 0) FROM outbox GROUP BY 1, 2"
)


def note_asked(
    connection: Connection, campaign_id: bytes, *, at: float, version: int, reason: str
) -> None:
    """Counts an item that came in under a grant."""
    counters.bump(connection, campaign_id, _asked_name(int(at // SECONDS_PER_DAY), version, reason))


def note_left(
    connection: Connection, campaign_id: bytes, state: str, sort: str, change: int = 1
) -> None:
    """Counts an outcome: `total` when it is queued, `named` when it says a class, `sent` when sent.

    Args:
        connection: Inside the transaction of the outcome.
        campaign_id: 16 bytes.
        state: RELEASED, LABELED …
        sort: total, named or sent.
        change: -1 when an outcome is taken back.
    """
    counters.bump(connection, campaign_id, f"{LEFT}{state}.{sort}", change)


def _asked_name(day: int, version: int, reason: str) -> str:
    return f"{ASKED}{day}.{version}.{reason}"


def recount(connection: Connection) -> None:
    """Counts anew from the rows; for a store that an older portal wrote."""
    connection.exec_driver_sql(
        "DELETE FROM counter WHERE name GLOB 'asked.*' OR name GLOB 'left.*'"
    )
    totals: Counter[tuple[bytes, str]] = Counter()
    for campaign_id, day, version, reason, count in connection.exec_driver_sql(_ASKED_ROWS):
        totals[campaign_id, _asked_name(day, version, reason)] += count
    for campaign_id, state, total, sent, named in connection.exec_driver_sql(_LEFT_ROWS):
        for sort, count in (("total", total), ("sent", sent), ("named", named)):
            totals[campaign_id, f"{LEFT}{state}.{sort}"] += count
    for (campaign_id, name), count in totals.items():
        counters.bump(connection, campaign_id, name, count)


def recount_if_missing(connection: Connection) -> None:
    """Counts once where outcomes are there and no counts of them."""
    some = connection.exec_driver_sql("SELECT 1 FROM outbox LIMIT 1").first()
    counted = connection.exec_driver_sql(
        "SELECT 1 FROM counter WHERE name GLOB 'left.*' LIMIT 1"
    ).first()
    if some is not None and counted is None:
        recount(connection)
