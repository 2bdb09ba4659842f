"""Grants that this device was given, each until the coordinator knows its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from perimeter.v1 import grant_pb2

from edge_agent.queue.database import Database


class GrantStage(IntEnum):
    """How far the release of a grant is."""

    OPEN = 0
    SETTLED = 1
    """The outcome is decided here and not yet known to the coordinator."""
    REPORTED = 2


@dataclass(frozen=True)
class HeldGrant:
    """A grant with its outcome.

    Attributes:
        grant: As the coordinator signed it.
        attempts: Deliveries tried so far.
        outcome: Wire's `OutcomeState`, 0 while open.
        reason: Why it was refused; stable word without content.
    """

    grant: grant_pb2.Grant
    attempts: int = 0
    outcome: int = 0
    reason: str = ""


class GrantBook:
    """Grants at rest. They hold ids and times only, so they are not sealed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, grants: Iterable[grant_pb2.Grant]) -> int:
        """Stores grants and takes their samples out of the pool; returns how many were new."""
        added = 0
        with self._database.transaction():
            for grant in grants:
                new = self._database.write(
                    "INSERT OR IGNORE INTO grant_book (grant_id, ledger_sequence, body)"
                    " VALUES (?, ?, ?)",
                    (grant.grant_id, grant.ledger_sequence, grant.SerializeToString()),
                )
                if new:
                    self._database.write(
                        "UPDATE sample SET state = 1 WHERE candidate_id = ? AND campaign_id = ?",
                        (grant.candidate_id, grant.campaign_id),
                    )
                added += new
        return added

    def find(self, grant_id: bytes) -> HeldGrant | None:
        """Returns a grant that this device was given, or None."""
        rows = self._database.read(
            "SELECT body, attempts, outcome, reason FROM grant_book WHERE grant_id = ?", (grant_id,)
        )
        return _held(rows[0]) if rows else None

    def live_since(self, before: float) -> list[grant_pb2.Grant]:
        """Returns grants that are open, or were settled at or after a moment."""
        rows = self._database.read(
            "SELECT body FROM grant_book WHERE stage = 0 OR settled_at >= ?", (before,)
        )
        return [grant_pb2.Grant.FromString(body) for (body,) in rows]

    def due(self, now: float, *, count_max: int = 32) -> list[HeldGrant]:
        """Returns open grants whose next attempt is due, oldest first."""
        rows = self._database.read(
            "SELECT body, attempts, outcome, reason FROM grant_book"
            " WHERE stage = 0 AND next_at <= ? ORDER BY ledger_sequence LIMIT ?",
            (now, count_max),
        )
        return [_held(row) for row in rows]

    def postpone(self, grant_id: bytes, *, until: float, reason: str) -> None:
        """Counts a failed attempt and sets the time of the next one."""
        self._database.write(
            "UPDATE grant_book SET attempts = attempts + 1, next_at = ?, reason = ?"
            " WHERE grant_id = ?",
            (until, reason, grant_id),
        )

    def settle(self, grant_id: bytes, outcome: int, *, reason: str = "", now: float = 0.0) -> None:
        """Decides the outcome of an open grant; a second call changes nothing."""
        self._database.write(
            "UPDATE grant_book SET stage = 1, outcome = ?, reason = ?, settled_at = ?"
            " WHERE grant_id = ? AND stage = 0",
            (outcome, reason, now, grant_id),
        )

    def unreported(self, *, count_max: int = 500) -> list[HeldGrant]:
        """Returns settled grants whose outcome the coordinator does not know."""
        rows = self._database.read(
            "SELECT body, attempts, outcome, reason FROM grant_book"
            " WHERE stage = 1 ORDER BY ledger_sequence LIMIT ?",
            (count_max,),
        )
        return [_held(row) for row in rows]

    def mark_reported(self, grant_ids: Sequence[bytes]) -> None:
        """Notes that the coordinator has these outcomes."""
        self._database.write_many(
            "UPDATE grant_book SET stage = 2 WHERE grant_id = ?", [(g,) for g in grant_ids]
        )

    def mark_disputed(self, grant_id: bytes, reason: str) -> None:
        """Ends the reporting of an outcome that the coordinator will not take."""
        self._database.write(
            "UPDATE grant_book SET stage = 2, reason = ? WHERE grant_id = ?", (reason, grant_id)
        )

    def open_count(self) -> int:
        """Returns the number of grants that wait for release."""
        return int(self._database.read("SELECT count(*) FROM grant_book WHERE stage = 0")[0][0])

    def counts(self) -> dict[str, int]:
        """Returns the number of grants by outcome; `open` while undecided."""
        names = {0: "open"} | {
            number: name.removeprefix("OUTCOME_STATE_").lower()
            for name, number in grant_pb2.OutcomeState.items()
            if number
        }
        rows = self._database.read("SELECT outcome, count(*) FROM grant_book GROUP BY outcome")
        return {names[outcome]: count for outcome, count in rows}

    def reasons(self) -> dict[str, int]:
        """Returns the number of refused grants by reason."""
        return dict(
            self._database.read(
                "SELECT reason, count(*) FROM grant_book WHERE reason != '' GROUP BY reason"
            )
        )


def _held(row: tuple[bytes, int, int, str]) -> HeldGrant:
    body, attempts, outcome, reason = row
    return HeldGrant(grant_pb2.Grant.FromString(body), attempts, outcome, reason)
