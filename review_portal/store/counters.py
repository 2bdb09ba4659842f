"""Counts that pages show, kept by the transactions that change them."""

from __future__ import annotations

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from review_portal.store.tables import counter


def bump(connection: Connection, campaign_id: bytes, name: str, change: int = 1) -> None:
    """Adds to one count of a campaign."""
    statement = insert(counter).values(campaign_id=campaign_id, name=name, value=change)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[counter.c.campaign_id, counter.c.name],
            set_={"value": counter.c.value + change},
        )
    )


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
