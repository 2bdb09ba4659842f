"""Reads the archive for people: totals, pages of records, alarms, the check, the export."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from perimeter.v1 import candidate_pb2

from review_portal.egress.archive import EgressArchive
from review_portal.egress.decoding import fields_of
from review_portal.egress.record import (
    EgressRecord,
    chain_fault,
    fault_of,
    parse_line,
)

PAGE_ROWS = 50
_PLACE_MAX = 2**63 - 1
_HISTOGRAM = "perimeter.v1.CandidateService/ReportHistogram"
TOTAL_ROWS = 200


@dataclass(frozen=True)
class Choice:
    """Which records are meant; an empty field means all.

    Attributes:
        day: Days since 1970-01-01, or None.
        source: `agent/<name>` or `portal/<name>`.
        method: gRPC method.
    """

    day: int | None = None
    source: str = ""
    method: str = ""

    def where(self) -> tuple[str, list[object]]:
        """Returns a condition for SQL and its values."""
        parts: Mapping[str, object] = {
            "day = ?": self.day,
            "source = ?": self.source or None,
            "method = ?": self.method or None,
        }
        chosen = {text: value for text, value in parts.items() if value is not None}
        return " AND ".join(chosen) or "1", list(chosen.values())


@dataclass(frozen=True)
class Total:
    """Messages of one kind that left one machine on one day."""

    day: int
    source: str
    method: str
    message_count: int
    byte_count: int


@dataclass(frozen=True)
class ShownRecord:
    """A record with what it says.

    Attributes:
        record_id: Place in the archive.
        source: Whose ledger.
        record: The record.
        fields: Name and value of each field of the message.
    """

    record_id: int
    source: str
    record: EgressRecord
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Alarm:
    """Something about a ledger that must not be.

    Attributes:
        source: Whose ledger.
        sort: CHANGED, PAYLOAD, GAP, FORK, SUM or MALFORMED.
        sequence: At which record; 0 when the line was none.
        at: When the portal noticed, in seconds since 1970.
    """

    source: str
    sort: str
    sequence: int
    at: float


@dataclass(frozen=True)
class Checked:
    """Result of checking one ledger.

    Attributes:
        source: Whose ledger.
        message_count: Records.
        byte_count: Sum of the sizes of their messages.
        head: Digest of the newest record.
        faults: `SORT at N`, at most 20 of them; empty when the ledger is whole.
    """

    source: str
    message_count: int
    byte_count: int
    head: str
    faults: tuple[str, ...]


def sources(archive: EgressArchive) -> tuple[str, ...]:
    """Returns all machines that have a ledger here."""
    with archive.reading() as connection:
        return tuple(
            r[0] for r in connection.execute("SELECT DISTINCT source FROM total ORDER BY source")
        )


def methods(archive: EgressArchive) -> tuple[str, ...]:
    """Returns all kinds of messages that ever left."""
    with archive.reading() as connection:
        return tuple(
            r[0] for r in connection.execute("SELECT DISTINCT method FROM total ORDER BY method")
        )


def totals(archive: EgressArchive, choice: Choice) -> tuple[Total, ...]:
    """Returns sums by day, machine and kind, newest day first, at most 200."""
    text, values = choice.where()
    with archive.reading() as connection:
        rows = connection.execute(
            f"SELECT day, source, method, message_count, byte_count FROM total WHERE {text}"  # noqa: S608
            " ORDER BY day DESC, source, method LIMIT ?",
            (*values, TOTAL_ROWS),
        )
        return tuple(Total(*row) for row in rows)


def newest(
    archive: EgressArchive, choice: Choice, *, before: int = 0, count: int = PAGE_ROWS
) -> tuple[ShownRecord, ...]:
    """Returns records, newest first.

    Args:
        archive: Where they are.
        choice: Which.
        before: Only records before this place in the archive; 0 for the newest.
        count: At most so many.
    """
    text, values = choice.where()
    with archive.reading() as connection:
        rows = connection.execute(
            f"SELECT record_id, source, line FROM record WHERE {text}"  # noqa: S608
            " AND record_id < ? ORDER BY record_id DESC LIMIT ?",
            (*values, before or _PLACE_MAX, count),
        ).fetchall()
    return tuple(_shown(row) for row in rows)


def _shown(row: sqlite3.Row) -> ShownRecord:
    record = parse_line(row["line"])
    assert record is not None, "only records are kept"
    return ShownRecord(row["record_id"], row["source"], record, tuple(fields_of(record)))


@dataclass(frozen=True)
class SpentEpsilon:
    """Privacy loss of the histograms of one campaign that left one machine.

    Attributes:
        source: Whose ledger.
        release_count: Different histograms; a repeat is the same one.
        epsilon: Sum of their privacy losses.
    """

    source: str
    release_count: int
    epsilon: float


def spent_epsilon(archive: EgressArchive, campaign_id: bytes) -> tuple[SpentEpsilon, ...]:
    """Returns what a campaign in histogram mode has cost, counted from the messages themselves."""
    releases: dict[str, dict[bytes, int]] = {}
    with archive.reading() as connection:
        rows = connection.execute(
            "SELECT source, line FROM record WHERE method = ? ORDER BY record_id", (_HISTOGRAM,)
        )
        for source, line in rows:
            record = parse_line(line)
            try:
                raw = b"" if record is None else record.raw_payload()
                told = candidate_pb2.ReportHistogramRequest.FromString(raw)
            except (DecodeError, ValueError):
                continue
            if told.campaign_id == campaign_id:
                releases.setdefault(source, {})[told.noised_counts] = told.epsilon_milli
    return tuple(
        SpentEpsilon(source, len(found), sum(found.values()) / 1000)
        for source, found in sorted(releases.items())
    )


def alarms(archive: EgressArchive, *, count: int = 100) -> tuple[Alarm, ...]:
    """Returns what was noticed about ledgers, newest first."""
    with archive.reading() as connection:
        rows = connection.execute(
            "SELECT source, sort, sequence, at FROM alarm ORDER BY alarm_id DESC LIMIT ?", (count,)
        )
        return tuple(Alarm(*row) for row in rows)


def lines(archive: EgressArchive, source: str) -> Iterator[bytes]:
    """Yields a ledger line by line as it stands on its machine, with line breaks."""
    with archive.reading() as connection:
        for row in connection.execute(
            "SELECT line FROM record WHERE source = ? ORDER BY record_id", (source,)
        ):
            yield row[0] + b"\n"


def check(archive: EgressArchive, source: str) -> Checked:
    """Checks every record and every link of a ledger, from what is stored and not from alarms."""
    count = size = 0
    head = ""
    faults: list[str] = []
    parents: set[str] = set()
    before: EgressRecord | None = None
    with archive.reading() as connection:
        rows = connection.execute(
            "SELECT line FROM record WHERE source = ? ORDER BY sequence, record_id", (source,)
        )
        for (line,) in rows:
            record = parse_line(line)
            if record is None:
                faults.append(f"MALFORMED after {count} records")
                continue
            faults += _faults(record, _parent(connection, source, record, before), parents)
            parents.add(record.previous)
            count, size, head, before = count + 1, size + record.size_bytes, record.digest, record
    return Checked(source, count, size, head, tuple(faults[:20]))


def _faults(record: EgressRecord, parent: EgressRecord | None, parents: set[str]) -> list[str]:
    inside = fault_of(record)
    outside = chain_fault(record, lambda _: parent, is_only_child=record.previous not in parents)
    return [f"{sort} at {record.sequence}" for sort in (inside, outside) if sort]


def _parent(
    connection: sqlite3.Connection, source: str, record: EgressRecord, before: EgressRecord | None
) -> EgressRecord | None:
    if before is not None and before.digest == record.previous:
        return before
    row = connection.execute(
        "SELECT line FROM record WHERE source = ? AND digest = ?", (source, record.previous)
    ).fetchone()
    return None if row is None else parse_line(row["line"])
