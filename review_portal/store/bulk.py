"""Near-duplicates that one look settles together."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from review_portal.core.duplicates import GroupableItem, near_duplicate_groups
from review_portal.core.model import Answer, Decision, Kind, Receipt, Refusal
from review_portal.store import annotations as decisions
from review_portal.store.queue import QueuedItem
from review_portal.store.tables import annotation

SINGLE_CHECK_FROM = 5
"""Groups of this size and more keep one member, drawn by chance, for a look of its own."""


@dataclass(frozen=True)
class Group:
    """Items that look alike and have one suggestion.

    Attributes:
        class_index: The suggestion.
        members: Items and their texts, the clearest first.
        similarity_min: Least similarity to the first one.
    """

    class_index: int
    members: tuple[tuple[QueuedItem, str], ...]
    similarity_min: float


def groups(opened: Sequence[tuple[QueuedItem, bytes]], kind: Kind) -> tuple[Group, ...]:
    """Groups leased items by look and suggestion.

    Args:
        opened: Items with a suggestion and their unsealed content.
        kind: Kind of all of them.
    """
    suggested = [(q, content) for q, content in opened if q.suggestion_index is not None]
    by_id = {q.item_id.hex(): (q, content) for q, content in suggested}
    found = near_duplicate_groups(
        [
            GroupableItem(q.item_id.hex(), kind, content, part=str(q.suggestion_index))
            for q, content in suggested
        ]
    )
    made = []
    for entry in found:
        members = [by_id[item_id] for item_id in entry.item_ids]
        if len(members) >= SINGLE_CHECK_FROM:
            members.pop(1 + secrets.randbelow(len(members) - 1))
        shown = tuple((q, content.decode("utf-8", "replace")) for q, content in members)
        made.append(Group(members[0][0].suggestion_index or 0, shown, entry.similarity_min))
    return tuple(made)


def approve(
    connection: Connection, desk: decisions.Desk, item_ids: Sequence[bytes], class_index: int
) -> int:
    """Records one answer for several items; `desk.batch_token` ties them together.

    Returns:
        How many are stored, those of an earlier try of the same approval included.
    """
    stored = 0
    for place, item_id in enumerate(item_ids):
        decision = Decision(
            item_id,
            Answer(class_index),
            0.0,
            f"{desk.batch_token}-{place}",
        )
        outcome = decisions.record(connection, desk, decision)
        stored += isinstance(outcome, Receipt) and outcome.stored != "late"
    return stored


def undo(connection: Connection, desk: decisions.Desk, batch_token: str, until: float) -> int:
    """Takes a whole approval back. Returns how many decisions were withdrawn."""
    tokens = connection.execute(
        select(annotation.c.client_token).where(
            annotation.c.expert_id == desk.expert_id,
            annotation.c.batch_token == batch_token,
            annotation.c.withdraws.is_(None),
        )
    ).scalars()
    undone = 0
    for token in tokens.all():
        outcome = decisions.undo(
            connection, desk, client_token=f"undo-{token}"[:64], of_token=token, until=until
        )
        undone += not isinstance(outcome, Refusal)
    return undone
