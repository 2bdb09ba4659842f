"""Unmaskings at rest: who asks, who decides, what the device said. Never the words.

Each change is one row of the audit log in the same transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from review_portal.core import unmasking as core
from review_portal.core.model import Refusal
from review_portal.core.unmasking import UnmaskState
from review_portal.errors import KeyMissing
from review_portal.store import audit
from review_portal.store.campaigns import settings_of
from review_portal.store.people import Person
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, person, unmasking

DUE_MAX = 100
LISTED_MAX = 200
OFF = Refusal("UNMASK_OFF", "the site lead has not switched unmasking on for this campaign")
UNKNOWN = Refusal("UNMASK_UNKNOWN", "there is no such question of yours")
OVER = Refusal("UNMASK_OVER", "this question is over; ask again")


@dataclass(frozen=True)
class Listed:
    """An unmasking as pages show it.

    Attributes:
        unmasking_id: 16 bytes.
        placeholder: What was asked about.
        reason_code: Why.
        note: Why, in words; empty once the campaign's key is gone.
        state: Where it stands now.
        author: Display name of who asked.
        expert_id: Who asked.
        asked_at: Seconds since the epoch.
    """

    unmasking_id: bytes
    placeholder: str
    reason_code: str
    note: str
    state: UnmaskState
    author: str
    expert_id: int
    asked_at: float


def decide(
    connection: Connection, unmasking_id: bytes, decider: Person, *, yes: bool, now: float
) -> Refusal | None:
    """Says yes or no to a question of somebody else."""
    row = _standing(connection, unmasking_id, now, UnmaskState.ASKED)
    if isinstance(row, Refusal):
        return row
    refused = core.check_decider(row.expert_id, decider.person_id, decider.role)
    if refused is not None:
        return refused
    state = UnmaskState.APPROVED if yes else UnmaskState.DECLINED
    _move(connection, unmasking_id, state, until=now + core.APPROVAL_SECONDS)
    connection.execute(
        update(unmasking)
        .where(unmasking.c.unmasking_id == unmasking_id)
        .values(decided_by=decider.person_id)
    )
    action = "unmask.approved" if yes else "unmask.declined"
    note_event(connection, now, f"person:{decider.person_id}", (action, unmasking_id))
    return None


def open_viewing(
    connection: Connection, unmasking_id: bytes, expert_id: int, now: float
) -> Refusal | None:
    """Begins the one viewing of an approved question; from now on the device may answer."""
    row = _standing(connection, unmasking_id, now, UnmaskState.APPROVED)
    if isinstance(row, Refusal):
        return row
    if row.expert_id != expert_id:
        return UNKNOWN
    if not settings_of(connection, row.campaign_id).unmasking:
        return OFF
    _move(connection, unmasking_id, UnmaskState.OPENED, until=now + core.VIEWING_SECONDS)
    note_event(connection, now, f"person:{expert_id}", ("unmask.opened", unmasking_id))
    return None


def due(
    connection: Connection, agent_name: str, now: float
) -> tuple[tuple[bytes, bytes, str], ...]:
    """Returns id, grant id and placeholder of the viewings that wait for a device."""
    rows = connection.execute(
        select(unmasking.c.unmasking_id, item.c.grant_id, unmasking.c.placeholder)
        .join(item, item.c.item_number == unmasking.c.item_number)
        .where(
            unmasking.c.state == UnmaskState.OPENED.value,
            unmasking.c.until > now,
            unmasking.c.agent_name == agent_name,
            item.c.grant_id.is_not(None),
        )
        .order_by(unmasking.c.asked_at)
        .limit(DUE_MAX)
    )
    return tuple((row.unmasking_id, row.grant_id, row.placeholder) for row in rows)


@dataclass(frozen=True)
class DeviceAnswer:
    """What a device said.

    Attributes:
        unmasking_id: 16 bytes.
        agent_name: The device, by its certificate.
        state: ANSWERED, REFUSED, GONE or UNKNOWN.
        device_record: Digest of the line in the device's own audit log, in hex.
    """

    unmasking_id: bytes
    agent_name: str
    state: UnmaskState
    device_record: str


def answered(connection: Connection, answer: DeviceAnswer, now: float) -> float | None:
    """Notes a device's answer. Returns when the viewing ends; None when nobody waits for it."""
    row = _standing(connection, answer.unmasking_id, now, UnmaskState.OPENED)
    if isinstance(row, Refusal) or row.agent_name != answer.agent_name:
        return None
    _move(connection, answer.unmasking_id, answer.state, until=row.until)
    detail = {"answer": answer.state.value.lower(), "device_record": answer.device_record}
    event = ("unmask.answered", answer.unmasking_id)
    note_event(connection, now, f"agent:{answer.agent_name}", event, detail)
    return float(row.until)


def shown(connection: Connection, unmasking_id: bytes, expert_id: int, now: float) -> bool:
    """Notes that the words are handed to the expert's browser now; False when they may not be."""
    row = _standing(connection, unmasking_id, now, UnmaskState.ANSWERED)
    if isinstance(row, Refusal) or row.expert_id != expert_id:
        return False
    _move(connection, unmasking_id, UnmaskState.SHOWN, until=row.until)
    note_event(connection, now, f"person:{expert_id}", ("unmask.shown", unmasking_id))
    return True


def state_of(
    connection: Connection, unmasking_id: bytes, expert_id: int, now: float
) -> UnmaskState | None:
    """Returns where an expert's own question stands, or None."""
    row = _row(connection, unmasking_id)
    if row is None or row.expert_id != expert_id:
        return None
    return core.state_at(UnmaskState(row.state), row.until, now)


def list_all(
    connection: Connection, keys: KeyRing | None, now: float, *, expert_id: int | None = None
) -> tuple[Listed, ...]:
    """Returns the newest questions: everybody's, or one expert's; without keys without notes."""
    query: Select[Any] = (
        select(unmasking, item.c.campaign_id, person.c.display_name, person.c.username)
        .join(item, item.c.item_number == unmasking.c.item_number)
        .join(person, person.c.person_id == unmasking.c.expert_id)
        .order_by(unmasking.c.asked_at.desc())
        .limit(LISTED_MAX)
    )
    if expert_id is not None:
        query = query.where(unmasking.c.expert_id == expert_id)
    return tuple(_listed(keys, row, now) for row in connection.execute(query))


def _listed(keys: KeyRing | None, row: Row[Any], now: float) -> Listed:
    note = ""
    if keys is not None:
        with contextlib.suppress(KeyMissing):
            place = note_row(row.unmasking_id)
            note = keys.unseal(row.campaign_id, place, row.sealed_note).decode()
    return Listed(
        unmasking_id=row.unmasking_id,
        placeholder=row.placeholder,
        reason_code=row.reason_code,
        note=note,
        state=core.state_at(UnmaskState(row.state), row.until, now),
        author=row.display_name or row.username,
        expert_id=row.expert_id,
        asked_at=row.asked_at,
    )


def _row(connection: Connection, unmasking_id: bytes) -> Row[Any] | None:
    return connection.execute(
        select(unmasking, item.c.campaign_id)
        .join(item, item.c.item_number == unmasking.c.item_number)
        .where(unmasking.c.unmasking_id == unmasking_id)
    ).first()


def _standing(
    connection: Connection, unmasking_id: bytes, now: float, wanted: UnmaskState
) -> Row[Any] | Refusal:
    row = _row(connection, unmasking_id)
    if row is None:
        return UNKNOWN
    if core.state_at(UnmaskState(row.state), row.until, now) is not wanted:
        return OVER
    return row


def _move(connection: Connection, unmasking_id: bytes, state: UnmaskState, *, until: float) -> None:
    connection.execute(
        update(unmasking)
        .where(unmasking.c.unmasking_id == unmasking_id)
        .values(state=state.value, until=until)
    )


def note_event(
    connection: Connection,
    now: float,
    actor: str,
    what: tuple[str, bytes],
    detail: Mapping[str, object] | None = None,
) -> None:
    """Adds a row about an unmasking to the audit log."""
    action, unmasking_id = what
    audit.append(connection, now, audit.Event(actor, action, unmasking_id.hex(), detail))


def note_row(unmasking_id: bytes) -> bytes:
    """Returns the name under which the reason of a question is sealed."""
    return b"unmasking\0" + unmasking_id
