"""Asking what a placeholder stands for: who may, about what, with which reason."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from review_portal.core import unmasking as core
from review_portal.core.model import ItemState, Kind, Refusal, Role
from review_portal.core.unmasking import UnmaskState
from review_portal.errors import KeyMissing
from review_portal.store import flags, items
from review_portal.store.campaigns import settings_of
from review_portal.store.people import Person
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import audit as audit_table
from review_portal.store.tables import item, item_content, unmasking
from review_portal.store.unmaskings import OFF, note_event, note_row


@dataclass(frozen=True)
class Question:
    """What an expert asks.

    Attributes:
        item_id: 16 bytes.
        placeholder: As it stands in the masked text.
        reason_code: One of `core.unmasking.REASON_CODES`.
        note: Why, in the expert's words; sealed at rest.
    """

    item_id: bytes
    placeholder: str
    reason_code: str
    note: str


@dataclass(frozen=True)
class Asker:
    """Who asks, under which masking policies, and when.

    Attributes:
        person: An expert or an adjudicator.
        policies: Masking policies that count as current.
        now: Seconds since the epoch.
    """

    person: Person
    policies: tuple[str, ...]
    now: float


@dataclass(frozen=True)
class Askable:
    """An item about which an expert may ask.

    Attributes:
        item_id: 16 bytes.
        text: The masked text.
        placeholders: What may be asked about.
    """

    item_id: bytes
    text: str
    placeholders: tuple[str, ...]


def askable(
    connection: Connection, keys: KeyRing, asker: Asker, item_id: bytes
) -> Askable | Refusal:
    """Returns what somebody may ask about an item, or why nothing."""
    row = _item(connection, item_id)
    if row is None or not _may_see(connection, item_id, row.state, asker.person):
        return Refusal("ITEM_UNKNOWN", "you do not hold this item")
    if not settings_of(connection, row.campaign_id).unmasking:
        return OFF
    if row.mask_policy not in asker.policies:
        return Refusal("MASK_POLICY", "the item was masked under another policy")
    try:
        plain = keys.unseal(row.campaign_id, items.content_row(item_id), row.sealed)
    except KeyMissing:
        return Refusal("ITEM_UNKNOWN", "the content of this campaign was deleted")
    text = plain.decode("utf-8", "replace")
    spans = [(start, end, name) for start, end, name in json.loads(row.mask_spans)]
    return Askable(item_id, text, core.placeholders(Kind(row.kind), text, spans))


def ask(connection: Connection, keys: KeyRing, asker: Asker, question: Question) -> bytes | Refusal:
    """Stores a question for a second person. Returns its id, or a refusal that changed nothing."""
    refused = core.check_reason(question.reason_code, question.note)
    if refused is not None:
        return refused
    found = askable(connection, keys, asker, question.item_id)
    if isinstance(found, Refusal):
        return found
    if question.placeholder not in found.placeholders:
        return Refusal("UNMASK_PLACEHOLDER", "this placeholder does not occur in the item")
    agent = _deliverer(connection, question.item_id)
    if agent is None:
        return Refusal("UNMASK_NO_DEVICE", "no device delivered this item")
    expert_id = asker.person.person_id
    if len(_open_of(connection, expert_id, asker.now)) >= core.WAITING_MAX:
        return Refusal("UNMASK_MANY", f"at most {core.WAITING_MAX} questions may be open")
    row = _item(connection, question.item_id)
    assert row is not None
    unmasking_id = secrets.token_bytes(16)
    connection.execute(
        unmasking.insert().values(
            unmasking_id=unmasking_id,
            item_number=row.item_number,
            expert_id=expert_id,
            agent_name=agent,
            placeholder=question.placeholder,
            reason_code=question.reason_code,
            sealed_note=keys.seal(
                row.campaign_id, note_row(unmasking_id), question.note.strip().encode()
            ),
            state=UnmaskState.ASKED.value,
            until=asker.now + core.ASK_SECONDS,
            asked_at=asker.now,
        )
    )
    detail = {
        "item": question.item_id.hex(),
        "type": core.entity_type(question.placeholder),
        "why": question.reason_code,
    }
    note_event(connection, asker.now, f"person:{expert_id}", ("unmask.asked", unmasking_id), detail)
    return unmasking_id


def _item(connection: Connection, item_id: bytes) -> Row[Any] | None:
    wanted: Select[Any] = (
        select(
            item.c.item_number, item.c.campaign_id, item.c.kind, item.c.state,
            item.c.mask_policy, item.c.mask_spans, item_content.c.sealed,
        )
        .join(item_content, item_content.c.item_number == item.c.item_number)
        .where(item.c.item_id == item_id)
    )  # fmt: skip
    return connection.execute(wanted).first()


def _may_see(connection: Connection, item_id: bytes, state: str, who: Person) -> bool:
    """Whoever saw the masked text may ask, also after its lease; the audit log knows."""
    if who.role is Role.ADJUDICATOR and state == ItemState.DISPUTED.value:
        return True
    if flags.was_given(connection, item_id, who.person_id):
        return True
    seen = connection.execute(
        select(audit_table.c.sequence)
        .where(
            audit_table.c.action == "item.viewed",
            audit_table.c.actor == f"person:{who.person_id}",
            audit_table.c.subject == item_id.hex(),
        )
        .limit(1)
    ).first()
    return seen is not None


def _deliverer(connection: Connection, item_id: bytes) -> str | None:
    """The device that delivered an item, as the audit log has it."""
    actor = connection.execute(
        select(audit_table.c.actor).where(
            audit_table.c.action == "item.received", audit_table.c.subject == item_id.hex()
        )
    ).scalar()
    return actor.removeprefix("agent:") if actor and actor.startswith("agent:") else None


def _open_of(connection: Connection, expert_id: int, now: float) -> list[Row[Any]]:
    states = [state.value for state in core.PASSING]
    return list(
        connection.execute(
            select(unmasking.c.unmasking_id).where(
                unmasking.c.expert_id == expert_id,
                unmasking.c.state.in_(states),
                unmasking.c.until > now,
            )
        )
    )
