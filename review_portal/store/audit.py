"""The audit log: every view, label and change of rights, each row chained to the one before.

A row's hash covers the hash of the row before, so a changed, removed or inserted row breaks the
chain from there on. Rows hold ids and reason codes, never content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from review_portal.store.tables import audit

GENESIS = hashlib.sha256(b"perimeter-audit-v1").digest()
"""What the first row is chained to."""


# Written out, since every decision runs them and building them costs more than running them.
_LAST = "SELECT sequence, chain_hash FROM audit ORDER BY sequence DESC LIMIT 1"
_APPEND = (
    "INSERT INTO audit (sequence, at, actor, action, subject, detail, chain_hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        actor: Who: `person:<id>`, `agent:<name>`, `coordinator` or `command`.
        action: What, as noun.verb.
        subject: To what: an id.
        detail: Small facts for the auditor; never content.
    """

    actor: str
    action: str
    subject: str = ""
    detail: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Verification:
    """Result of checking the chain.

    Attributes:
        event_count: Rows that verify.
        head: Hash of the last row that verifies, hex.
        first_broken: Sequence number of the first row that does not, or None.
    """

    event_count: int
    head: str
    first_broken: int | None


def chain_hash(previous: bytes, fields: Sequence[object]) -> bytes:
    """Returns the hash of one row.

    Args:
        previous: Hash of the row before, 32 bytes.
        fields: sequence, at, actor, action, subject, detail.

    >>> chain_hash(GENESIS, [1, 0.5, "a", "b", "c", "{}"]).hex()[:8]
    '557d7dd3'
    """
    canonical = json.dumps(list(fields), ensure_ascii=False, separators=(",", ":")).encode()
    return hashlib.sha256(previous + canonical).digest()


def append(connection: Connection, at: float, *events: Event) -> None:
    """Adds events to the log, in the caller's transaction."""
    if not events:
        return
    last = connection.exec_driver_sql(_LAST).first()
    sequence, head = (last[0], last[1]) if last else (0, GENESIS)
    rows = []
    for event in events:
        sequence += 1
        detail = json.dumps(event.detail or {}, sort_keys=True, separators=(",", ":"))
        fields = (sequence, at, event.actor, event.action, event.subject, detail)
        head = chain_hash(head, fields)
        rows.append((*fields, head))
    connection.exec_driver_sql(_APPEND, rows)


def verify(connection: Connection) -> Verification:
    """Checks the whole chain, row by row, in constant memory."""
    head, count = GENESIS, 0
    rows = connection.execution_options(yield_per=5000).execute(
        select(audit).order_by(audit.c.sequence)
    )
    for row in rows:
        expected = chain_hash(head, tuple(row)[:6])
        if row.sequence != count + 1 or row.chain_hash != expected:
            return Verification(count, head.hex(), count + 1)
        head, count = expected, count + 1
    return Verification(count, head.hex(), None)


def head_at(connection: Connection, sequence: int) -> str | None:
    """Returns the hash of one row in hex, or None when there is no such row."""
    found = connection.execute(
        select(audit.c.chain_hash).where(audit.c.sequence == sequence)
    ).scalar_one_or_none()
    return None if found is None else bytes(found).hex()


def newest_sequence(connection: Connection) -> int:
    """Returns the number of the last row, 0 for an empty log."""
    return (
        connection.execute(
            select(audit.c.sequence).order_by(audit.c.sequence.desc()).limit(1)
        ).scalar()
        or 0
    )
