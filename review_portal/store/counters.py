"""Counts that pages show, kept by the transactions that change them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from review_portal.store.tables import counter

# Written out, since these run several times in every decision and building them costs more than
# running them.
_BUMP = (
    "INSERT INTO counter (campaign_id, name, value) VALUES (?, ?, ?) "
    "ON CONFLICT (campaign_id, name) DO UPDATE SET value = value + excluded.value"
)


def bump(connection: Connection, campaign_id: bytes, name: str, change: int = 1) -> None:
    """Adds to one count of a campaign."""
    connection.exec_driver_sql(_BUMP, (campaign_id, name, change))


def of_all_campaigns(connection: Connection, name: str) -> dict[bytes, int]:
    """Returns one count of every campaign that has it."""
    rows = connection.exec_driver_sql(
        "SELECT campaign_id, value FROM counter WHERE name = ? AND value > 0", (name,)
    )
    return {bytes(campaign_id): int(value) for campaign_id, value in rows}


def counts(connection: Connection, campaign_id: bytes) -> dict[str, int]:
    """Returns all counts of a campaign by name."""
    rows = connection.execute(
        select(counter.c.name, counter.c.value).where(counter.c.campaign_id == campaign_id)
    )
    return {row.name: row.value for row in rows}


def state_name(state: str) -> str:
    """Returns the name of the count of items in a state.

    >>> state_name("OPEN")
    'items.OPEN'
    """
    return f"items.{state}"


def label_name(split: str, class_index: int | None, origin: str) -> str:
    """Returns the name of the count of standing labels of a class.

    >>> label_name("train", 3, "expert")
    'labels.train.expert.3'
    """
    return f"labels.{split}.{origin}.{'-' if class_index is None else class_index}"
