"""Who somebody is: passwords (Argon2id), sessions, CSRF tokens, login limits and API tokens."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection

from review_portal.config import PortalConfig
from review_portal.core.model import Refusal, Role
from review_portal.core.passwords import COMMON_PASSWORDS, check_password
from review_portal.core.throttle import Bucket, is_locked, take
from review_portal.errors import AccessError, PasswordWeak
from review_portal.store import audit, people
from review_portal.store.database import Database

HASHES_AT_ONCE = 2
STRONG_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
"""Argon2id with 64 MiB and 3 passes, the second choice of RFC 9106."""
API_TOKEN_PREFIX = "pmp1."  # noqa: S105  a prefix, no secret
USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
SEEN_STEP_SECONDS = 60.0
BUCKETS_MAX = 10_000

WRONG_LOGIN = Refusal("LOGIN_WRONG", "user name or password is wrong, or the account is locked")
TOO_MANY = Refusal("LOGIN_TOO_OFTEN", "too many tries; wait a minute and try again")


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in.

    Attributes:
        person: Who.
        token: Session token of the cookie; empty for an API token.
        csrf_token: What state-changing requests of this session must carry.
    """

    person: people.Person
    token: str
    csrf_token: str


def hash_token(token: str) -> bytes:
    """Returns what is stored of a token: its SHA-256."""
    return hashlib.sha256(token.encode()).digest()


def read_secret(folder: Path) -> bytes:
    """Returns the portal's own key, 32 bytes; made on first use, mode 0600."""
    path = folder / "secret.key"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as secret_file:
            secret_file.write(secrets.token_bytes(32))
            secret_file.flush()
            os.fsync(secret_file.fileno())
    return path.read_bytes()


class Access:
    """Logins of one portal.

    Args:
        database: Where people and sessions are.
        config: Limits.
        clock: Seconds since the epoch.
        secret: The portal's own key, 32 bytes.
        hasher: Hashes passwords.
    """

    def __init__(
        self,
        database: Database,
        config: PortalConfig,
        *,
        clock: Callable[[], float],
        secret: bytes,
        hasher: PasswordHasher = STRONG_HASHER,
    ) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self._secret = secret
        self._hasher = hasher
        # Few at once, so that a flood of logins eats no memory.
        self._hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)
        self._nobody_hash = self._hasher.hash(secrets.token_hex(16))
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()

    def add_person(self, username: str, password: str, *, role: Role, display_name: str) -> int:
        """Gives somebody a login. Returns their number.

        Raises:
            PasswordWeak: The password breaks the rules.
            UserExists: The user name is taken.
            AccessError: The user name has other characters than it may.
        """
        if not USERNAME.fullmatch(username):
            raise AccessError(
                f"user name {username!r} must be 1 to 40 of a-z, 0-9, '.', '-' and '_'"
            )
        new = people.NewPerson(
            username, display_name or username, role, self.hash_password(username, password)
        )
        now = self._clock()

        def work(connection: Connection) -> int:
            person_id = people.add_person(connection, new, now)
            event = audit.Event("command", "person.added", str(person_id), {"role": role.value})
            audit.append(connection, now, event)
            return person_id

        return self._database.write(work)

    def hash_password(self, username: str, password: str) -> str:
        """Returns the stored form of a new password.

        Raises:
            PasswordWeak: The password breaks the rules.
        """
        refused = check_password(password, username, COMMON_PASSWORDS)
        if refused is not None:
            raise PasswordWeak(refused.message)
        with self._hashing:
            return self._hasher.hash(password)

    def change_password(self, person_id: int, username: str, *, old: str, new: str) -> bool:
        """Gives somebody the password of their choice and ends all of their sessions.

        Returns:
            False when the old one is wrong, or was tried too often.

        Raises:
            PasswordWeak: The new one breaks the rules.
        """
        now = self._clock()
        row = self._database.read(lambda c: people.find_login(c, username))
        may_try = self._may_try(f"name:{username}", self._config.login_per_minute, now)
        if row is None or not may_try or not self._matches(row.password_hash, old):
            return False
        changes = {"password_hash": self.hash_password(username, new)}

        def work(connection: Connection) -> None:
            people.change_person(connection, person_id, changes)
            event = audit.Event(f"person:{person_id}", "password.changed", str(person_id))
            audit.append(connection, now, event)

        self._database.write(work)
        return True

    def log_in(self, username: str, password: str, *, address: str) -> Visitor | Refusal:
        """Checks a password and opens a session. Takes the same time for unknown users."""
        now = self._clock()
        if not self._may_try(f"address:{address}", self._config.login_per_address_per_minute, now):
            return TOO_MANY
        if not self._may_try(f"name:{username}", self._config.login_per_minute, now):
            return TOO_MANY
        row = self._database.read(lambda c: people.find_login(c, username))
        matches = self._matches(self._nobody_hash if row is None else row.password_hash, password)
        if row is None:
            return WRONG_LOGIN
        locked = is_locked(
            row.failed_count,
            lockout_after=self._config.lockout_after,
            locked_until=row.locked_until,
            now=now,
        )
        if locked or row.is_disabled or not matches:
            self._note_failure(row.person_id, row.failed_count, locked=locked, now=now)
            return WRONG_LOGIN
        return self._open(row.person_id, now)

    def _may_try(self, key: str, per_minute: int, now: float) -> bool:
        with self._lock:
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.clear()
            self._buckets[key], allowed = take(
                self._buckets.get(key), per_minute=per_minute, now=now
            )
            return allowed

    def _matches(self, password_hash: str, password: str) -> bool:
        with self._hashing:
            try:
                return self._hasher.verify(password_hash, password[:256])
            except VerificationError:
                return False

    def _note_failure(self, person_id: int, failed: int, *, locked: bool, now: float) -> None:
        failed_count = failed if locked else failed + 1
        locked_until = now + self._config.lockout_minutes * 60

        def work(connection: Connection) -> None:
            if not locked:
                people.note_login(
                    connection, person_id, failed_count=failed_count, locked_until=locked_until
                )
            event = audit.Event(f"person:{person_id}", "login.failed", "", {"locked": locked})
            audit.append(connection, now, event)

        self._database.write(work)

    def _open(self, person_id: int, now: float) -> Visitor | Refusal:
        token = secrets.token_urlsafe(32)
        expire_at = now + self._config.session_hours * 3600
        new = people.NewSession(hash_token(token), person_id, now, expire_at)

        def work(connection: Connection) -> people.Person | None:
            people.note_login(connection, person_id, failed_count=0, locked_until=0.0)
            people.open_session(connection, new)
            audit.append(connection, now, audit.Event(f"person:{person_id}", "login.succeeded"))
            return people.find_person(connection, person_id)

        person = self._database.write(work)
        return WRONG_LOGIN if person is None else Visitor(person, token, self.csrf_token(token))

    def log_out(self, visitor: Visitor) -> None:
        """Ends a session."""
        now = self._clock()

        def work(connection: Connection) -> None:
            people.close_session(connection, hash_token(visitor.token))
            event = audit.Event(f"person:{visitor.person.person_id}", "login.ended")
            audit.append(connection, now, event)

        self._database.write(work)

    def visitor(self, token: str) -> Visitor | None:
        """Returns whose session a token is, or None when it ended or never was."""
        now = self._clock()
        digest = hash_token(token)
        found = self._database.read(lambda c: people.find_session(c, digest))
        if found is None:
            return None
        row, owner = found
        idle_until = row.seen_at + self._config.session_idle_minutes * 60
        if owner.is_disabled or now >= row.expire_at or now >= idle_until:
            return None
        if now - row.seen_at >= SEEN_STEP_SECONDS:
            self._database.write_later(lambda c: people.touch_session(c, digest, now))
        return Visitor(owner, token, self.csrf_token(token))

    def api_visitor(self, token: str) -> Visitor | None:
        """Returns whose API token this is, or None."""
        now = self._clock()
        owner = self._database.read(lambda c: people.find_api_token(c, hash_token(token), now))
        return None if owner is None or owner.is_disabled else Visitor(owner, "", "")

    def make_api_token(self, person_id: int, purpose: str, *, days: float) -> str:
        """Makes an API token; its text is shown once and only its hash is kept."""
        token = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        new = people.NewSession(hash_token(token), person_id, now, now + days * 86400)

        def work(connection: Connection) -> None:
            token_id = people.add_api_token(connection, new, purpose)
            event = audit.Event(f"person:{person_id}", "token.made", str(token_id))
            audit.append(connection, now, event)

        self._database.write(work)
        return token

    def csrf_token(self, session_token: str) -> str:
        """Returns the token that state-changing requests of a session carry."""
        message = b"csrf\0" + session_token.encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    def csrf_fits(self, session_token: str, given: str) -> bool:
        """Returns whether a request carries its session's token, in constant time."""
        return hmac.compare_digest(self.csrf_token(session_token).encode(), given.encode())
