"""The site's list of words that got through masking. They are sealed; later items lose them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from review_portal.core.leaks import Shift, clean
from review_portal.core.model import NewItem
from review_portal.store import audit
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import leak_term

SITE_KEY = hashlib.sha256(b"words that a site masks").digest()[:16]
"""Stands where a campaign's id would: the list outlives every campaign."""


@dataclass(frozen=True)
class Term:
    """Words on the list.

    Attributes:
        term_id: 16 bytes, drawn by chance: nothing about the words.
        words: What is masked.
        added_at: Seconds since the epoch.
    """

    term_id: bytes
    words: str
    added_at: float


def list_terms(connection: Connection, keys: KeyRing) -> tuple[Term, ...]:
    """Returns the list, oldest first.

    Raises:
        KeyMissing: The list's key was deleted; nothing is taken in without it.
    """
    rows = connection.execute(select(leak_term).order_by(leak_term.c.added_at, leak_term.c.term_id))
    return tuple(
        Term(
            row.term_id,
            keys.unseal(SITE_KEY, _row_name(row.term_id), row.sealed).decode(),
            row.added_at,
        )
        for row in rows
    )


def words(connection: Connection, keys: KeyRing) -> tuple[str, ...]:
    """Returns the words of the list."""
    return tuple(term.words for term in list_terms(connection, keys))


def put(connection: Connection, keys: KeyRing, term: str, now: float) -> bytes:
    """Adds words to the list unless they are on it, whatever their case. Returns their id."""
    for known in list_terms(connection, keys):
        if known.words.casefold() == term.casefold():
            return known.term_id
    term_id = secrets.token_bytes(16)
    sealed = keys.seal(SITE_KEY, _row_name(term_id), term.encode())
    connection.execute(leak_term.insert().values(term_id=term_id, sealed=sealed, added_at=now))
    return term_id


def remove(connection: Connection, term_id: bytes, *, actor: str, now: float) -> bool:
    """Takes words off the list; what they replaced stays replaced. Returns whether they were on."""
    gone = connection.execute(leak_term.delete().where(leak_term.c.term_id == term_id)).rowcount
    if gone:
        audit.append(connection, now, audit.Event(actor, "leak.term_removed", term_id.hex()))
    return bool(gone)


def masked(connection: Connection, keys: KeyRing, new: NewItem) -> NewItem:
    """Returns a new item without the words on the list."""
    return without(words(connection, keys), new)[0]


def without(terms: Sequence[str], new: NewItem) -> tuple[NewItem, tuple[Shift, ...]]:
    """Returns a new item without these words, and where its text moved."""
    done = clean(new.kind, new.content, new.mask.spans, terms) if terms else None
    if done is None:
        return new, ()
    return replace(new, content=done.content, mask=replace(new.mask, spans=done.spans)), done.shifts


def as_toml(terms: Sequence[Term]) -> str:
    r"""Returns the list as the lines of an agent's `deny` setting.

    >>> print(as_toml([Term(bytes(16), 'the "Anna" case', 0.0)]), end="")
    deny = [
        "the \"Anna\" case",
    ]
    """
    quoted = (json.dumps(term.words, ensure_ascii=False) for term in terms)
    lines = "".join(f"    {text},\n" for text in quoted).replace("\x7f", "\\u007f")
    return f"deny = [\n{lines}]\n"


def _row_name(term_id: bytes) -> bytes:
    return b"leak\0" + term_id
