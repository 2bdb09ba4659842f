"""Requests that add something: a repeat after a lost reply adds nothing and gets the first answer.

Decisions have tokens of their own in `annotation`; this is for all other requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from review_portal.core.model import Refusal
from review_portal.store.tables import request_seen


@dataclass(frozen=True)
class Asked:
    """Who asks, and the token that is the same when they ask again.

    Attributes:
        expert_id: Who.
        client_token: Made by the client; empty for a client that never repeats.
    """

    expert_id: int
    client_token: str


def answered(connection: Connection, asked: Asked) -> int | None:
    """Returns what was answered to the same token before, or None."""
    return connection.execute(
        select(request_seen.c.answer).where(
            request_seen.c.expert_id == asked.expert_id,
            request_seen.c.client_token == asked.client_token,
        )
    ).scalar()


def once(
    connection: Connection, asked: Asked, work: Callable[[Connection], int | Refusal]
) -> int | Refusal:
    """Does something unless it was done for the same token; refusals may be tried again."""
    if not asked.client_token:
        return work(connection)
    found = answered(connection, asked)
    if found is not None:
        return found
    number = work(connection)
    if not isinstance(number, Refusal):
        connection.execute(
            request_seen.insert().values(
                expert_id=asked.expert_id, client_token=asked.client_token, answer=number
            )
        )
    return number
