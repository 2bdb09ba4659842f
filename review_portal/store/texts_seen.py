"""Marked spans of a page that shows a text as it was before reported words were taken out."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from review_portal.core.leaks import Shift, moved_answer
from review_portal.core.model import Decision, Refusal
from review_portal.store.present import parse_answer
from review_portal.store.tables import text_moved

CHANGED = Refusal("TEXT_CHANGED", "the text has changed since it was shown; mark it again")


def note_moved(
    connection: Connection, row: Any, after_sha256: bytes, shifts: tuple[Shift, ...]
) -> None:
    """Remembers how the text of an item's row moved. Places and lengths are kept, never words."""
    connection.execute(
        insert(text_moved)
        .values(
            item_number=row.item_number,
            before_sha256=row.content_sha256,
            after_sha256=after_sha256,
            shifts=json.dumps([astuple(shift) for shift in shifts]),
        )
        .on_conflict_do_nothing()
    )


def follow(connection: Connection, row: Any, decision: Decision) -> Decision | Refusal:
    """Returns a decision whose spans lie where their words are now.

    Args:
        connection: Inside the transaction.
        row: The item's row.
        decision: With the digest of the text that was shown, where its client knows it.

    Returns:
        The decision, or a refusal when nobody can tell how the text moved.
    """
    shown = decision.content_sha256
    if not decision.answer.spans or not shown:
        return decision
    key = decision.answer.key or ""
    while shown != row.content_sha256:
        step = connection.execute(
            select(text_moved).where(
                text_moved.c.item_number == row.item_number,
                text_moved.c.before_sha256 == shown,
            )
        ).first()
        if step is None:
            return CHANGED
        key = moved_answer(key, tuple(Shift(*entry) for entry in json.loads(step.shifts)))
        shown = step.after_sha256
    return replace(decision, answer=parse_answer(key))
