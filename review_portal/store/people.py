"""People of the site, their sessions and their API tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError

from review_portal.core.model import Role
from review_portal.errors import UserExists
from review_portal.store.database import insert_row
from review_portal.store.tables import api_token, person, session


@dataclass(frozen=True)
class Person:
    """Somebody with a login.

    Attributes:
        person_id: Number.
        username: What they log in with.
        display_name: What others see.
        role: What they may do.
        locale: Language of their pages; empty for the site's.
        languages: Languages that they read; empty for all.
        skills: What they know about.
        hours_per_day: Hours for labeling.
        daily_quota: Most decisions a day; 0 for no limit.
        preferences: Keys and other choices of their own.
        is_disabled: Whether they may log in no more.
        created_at: Seconds since the epoch.
    """

    person_id: int
    username: str
    display_name: str
    role: Role
    locale: str
    languages: tuple[str, ...]
    skills: tuple[str, ...]
    hours_per_day: float
    daily_quota: int
    preferences: Mapping[str, Any]
    is_disabled: bool
    created_at: float


@dataclass(frozen=True)
class NewPerson:
    """Somebody who gets a login.

    Attributes:
        username: Lower-case letters, digits, `.`, `-` and `_`.
        display_name: What others see.
        role: What they may do.
        password_hash: Argon2id, in its own text form.
        languages: Languages that they read; empty for all.
        skills: What they know about.
        hours_per_day: Hours for labeling.
    """

    username: str
    display_name: str
    role: Role
    password_hash: str
    languages: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    hours_per_day: float = 1.0


def _person_of(row: Row[tuple[object, ...]]) -> Person:
    return Person(
        person_id=row.person_id,
        username=row.username,
        display_name=row.display_name,
        role=Role(row.role),
        locale=row.locale,
        languages=tuple(json.loads(row.languages)),
        skills=tuple(json.loads(row.skills)),
        hours_per_day=row.hours_per_day,
        daily_quota=row.daily_quota,
        preferences=json.loads(row.preferences),
        is_disabled=row.is_disabled,
        created_at=row.created_at,
    )


def add_person(connection: Connection, new: NewPerson, now: float) -> int:
    """Adds somebody. Returns their number.

    Raises:
        UserExists: The user name is taken.
    """
    try:
        return insert_row(
            connection,
            person.insert().values(
                username=new.username,
                display_name=new.display_name,
                role=new.role.value,
                password_hash=new.password_hash,
                languages=json.dumps(new.languages),
                skills=json.dumps(new.skills),
                hours_per_day=new.hours_per_day,
                created_at=now,
            ),
        )
    except IntegrityError:
        raise UserExists(f"user name {new.username!r} is taken; choose another") from None


def find_person(connection: Connection, person_id: int) -> Person | None:
    """Returns somebody by number, or None."""
    row = connection.execute(select(person).where(person.c.person_id == person_id)).first()
    return None if row is None else _person_of(row)


def find_login(connection: Connection, username: str) -> Row[tuple[object, ...]] | None:
    """Returns the row that a login is checked against: hash, failures and lock included."""
    return connection.execute(select(person).where(person.c.username == username)).first()


def list_people(connection: Connection) -> tuple[Person, ...]:
    """Returns everybody by user name."""
    rows = connection.execute(select(person).order_by(person.c.username))
    return tuple(_person_of(row) for row in rows)


def change_person(connection: Connection, person_id: int, changes: Mapping[str, Any]) -> None:
    """Changes columns of a person; a new role or a lock ends their sessions."""
    stored = {
        key: json.dumps(value) if key in {"languages", "skills", "preferences"} else value
        for key, value in changes.items()
    }
    connection.execute(update(person).where(person.c.person_id == person_id).values(stored))
    if {"role", "is_disabled", "password_hash"} & set(changes):
        connection.execute(delete(session).where(session.c.person_id == person_id))


def note_login(
    connection: Connection, person_id: int, *, failed_count: int, locked_until: float
) -> None:
    """Keeps the number of wrong passwords in a row and the end of a lock."""
    connection.execute(
        update(person)
        .where(person.c.person_id == person_id)
        .values(failed_count=failed_count, locked_until=locked_until)
    )


@dataclass(frozen=True)
class NewSession:
    """A login that begins.

    Attributes:
        token_hash: SHA-256 of the cookie's token, 32 bytes.
        person_id: Whose it is.
        created_at: Seconds since the epoch.
        expire_at: When it ends at the latest.
    """

    token_hash: bytes
    person_id: int
    created_at: float
    expire_at: float


def open_session(connection: Connection, new: NewSession) -> None:
    """Adds a session and clears those that ended."""
    connection.execute(delete(session).where(session.c.expire_at <= new.created_at))
    connection.execute(
        session.insert().values(
            token_hash=new.token_hash,
            person_id=new.person_id,
            created_at=new.created_at,
            seen_at=new.created_at,
            expire_at=new.expire_at,
        )
    )


# Built once: it runs with every request.
_SESSION = (
    select(person, session.c.seen_at, session.c.expire_at)
    .join(session, session.c.person_id == person.c.person_id)
    .where(session.c.token_hash == bindparam("token"))
)


def find_session(
    connection: Connection, token_hash: bytes
) -> tuple[Row[tuple[object, ...]], Person] | None:
    """Returns a session and whose it is, or None."""
    row = connection.execute(_SESSION, {"token": token_hash}).first()
    return None if row is None else (row, _person_of(row))


def touch_session(connection: Connection, token_hash: bytes, now: float) -> None:
    """Notes that a session is in use."""
    connection.execute(
        update(session).where(session.c.token_hash == token_hash).values(seen_at=now)
    )


def close_session(connection: Connection, token_hash: bytes) -> None:
    """Ends a session."""
    connection.execute(delete(session).where(session.c.token_hash == token_hash))


def add_api_token(connection: Connection, new: NewSession, purpose: str) -> int:
    """Adds an API token. Returns its number."""
    return insert_row(
        connection,
        api_token.insert().values(
            token_hash=new.token_hash,
            person_id=new.person_id,
            purpose=purpose,
            created_at=new.created_at,
            expire_at=new.expire_at,
        ),
    )


def find_api_token(connection: Connection, token_hash: bytes, now: float) -> Person | None:
    """Returns whose a valid API token is, or None."""
    row = connection.execute(
        select(api_token.c.person_id).where(
            api_token.c.token_hash == token_hash,
            api_token.c.revoked_at.is_(None),
            api_token.c.expire_at > now,
        )
    ).first()
    return None if row is None else find_person(connection, row.person_id)


def list_api_tokens(connection: Connection, person_id: int) -> tuple[Row[tuple[object, ...]], ...]:
    """Returns somebody's API tokens, newest first; never their secrets, which are not stored."""
    return tuple(
        connection.execute(
            select(api_token)
            .where(api_token.c.person_id == person_id)
            .order_by(api_token.c.api_token_id.desc())
        ).all()
    )


def revoke_api_token(connection: Connection, person_id: int, api_token_id: int, now: float) -> bool:
    """Ends one of somebody's API tokens. Returns False when there is no such."""
    done = connection.execute(
        update(api_token)
        .where(
            api_token.c.api_token_id == api_token_id,
            api_token.c.person_id == person_id,
            api_token.c.revoked_at.is_(None),
        )
        .values(revoked_at=now)
    )
    return done.rowcount == 1
