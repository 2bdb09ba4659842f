"""Everything that left the site, in one file: a ledger for each device and one for the portal.

Lines are kept byte for byte. Nothing that a device hands over is turned away for not fitting: a
record that was changed, that leaves a gap or that continues a record which another one continues
already is kept and raises an alarm, since the site lead must see it above all others.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from review_portal.egress.record import (
    EgressRecord,
    Outgoing,
    chain_fault,
    fault_of,
    following,
    parse_line,
)
from review_portal.errors import EgressUnwritable

FILE_NAME = "egress.db"
SECONDS_PER_DAY = 86400
ALARMS_MAX = 1000
"""Alarms kept for one source; the first ones tell what happened."""
_BUSY_MILLISECONDS = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    record_id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    day INTEGER NOT NULL,
    method TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    previous TEXT NOT NULL,
    digest TEXT NOT NULL,
    line BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS record_by_digest ON record (source, digest);
CREATE INDEX IF NOT EXISTS record_by_previous ON record (source, previous);
CREATE INDEX IF NOT EXISTS record_by_source ON record (source, record_id);
CREATE INDEX IF NOT EXISTS record_by_day ON record (day, record_id);
CREATE INDEX IF NOT EXISTS record_by_method ON record (method, record_id);
CREATE TABLE IF NOT EXISTS total (
    day INTEGER NOT NULL,
    source TEXT NOT NULL,
    method TEXT NOT NULL,
    message_count INTEGER NOT NULL,
    byte_count INTEGER NOT NULL,
    PRIMARY KEY (day, source, method)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alarm (
    alarm_id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    sort TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (source, sort, sequence, digest)
);
"""


@dataclass(frozen=True)
class Taken:
    """What the archive holds of a source after taking lines.

    Attributes:
        last_sequence: Position of the newest record, 0 for none.
        last_digest: Its digest in hex, empty for none.
        malformed_count: Lines that are no records and were not kept.
    """

    last_sequence: int
    last_digest: str
    malformed_count: int = 0


class EgressArchive:
    """The site's record of what left.

    Args:
        folder: The portal's folder; it is made when missing.

    Raises:
        EgressUnwritable: The file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None

    def append(self, source: str, sent: Outgoing) -> EgressRecord:
        """Records a message of the portal's own, durably, before it is sent.

        Raises:
            EgressUnwritable: There is no room; the message must not be sent.
        """
        with self._writing() as connection:
            record = following(_last(connection, source), sent)
            _insert(connection, source, record)
            return record

    def take(self, source: str, lines: Sequence[bytes], now: float) -> Taken:
        """Keeps lines of a device's ledger, durably. Lines that are here already change nothing.

        Args:
            source: Whose ledger: `agent/<name>`.
            lines: Lines in order, without line breaks.
            now: Seconds since 1970, for alarms.

        Raises:
            EgressUnwritable: There is no room.
        """
        malformed = 0
        with self._writing() as connection:
            for line in lines:
                record = parse_line(line)
                if record is None:
                    malformed += 1
                    _alarm(connection, source, "MALFORMED", now)
                    break
                _take_one(connection, source, record, now)
            last = _last(connection, source)
        if last is None:
            return Taken(0, "", malformed)
        return Taken(last.sequence, last.digest, malformed)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._writer is None:
                    self._writer = self._opened()
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise EgressUnwritable(
                    f"what leaves cannot be recorded in {self.path}: {error}; "
                    "nothing is sent until it can"
                ) from None

    def _opened(self) -> sqlite3.Connection:
        fresh = not self.path.exists()
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        if fresh:
            self.path.chmod(0o600)
        return connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Opens a snapshot for reading; an archive without a file reads as empty."""
        # An export goes on from thread to thread, though never in two at once.
        opened = sqlite3.connect(self._readable(), uri=True, check_same_thread=False)
        with closing(opened) as connection:
            connection.row_factory = sqlite3.Row
            if not self.path.exists():
                connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            yield connection

    def _readable(self) -> str:
        return f"file:{self.path}?mode=ro" if self.path.exists() else "file::memory:"

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None


def _take_one(
    connection: sqlite3.Connection, source: str, record: EgressRecord, now: float
) -> None:
    held = connection.execute(
        "SELECT 1 FROM record WHERE source = ? AND digest = ? AND line = ?",
        (source, record.digest, record.line),
    ).fetchone()
    if held is not None:
        return
    is_only_child = not connection.execute(
        "SELECT 1 FROM record WHERE source = ? AND previous = ?", (source, record.previous)
    ).fetchone()

    def find(digest: str) -> EgressRecord | None:
        return _of_digest(connection, source, digest)

    for sort in (fault_of(record), chain_fault(record, find, is_only_child=is_only_child)):
        if sort:
            _alarm(connection, source, sort, now, record)
    _insert(connection, source, record)


def _insert(connection: sqlite3.Connection, source: str, record: EgressRecord) -> None:
    day = record.at // SECONDS_PER_DAY
    connection.execute(
        "INSERT INTO record (source, sequence, day, method, size_bytes, previous, digest, line)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            source,
            record.sequence,
            day,
            record.method,
            record.size_bytes,
            record.previous,
            record.digest,
            record.line,
        ),
    )
    connection.execute(
        "INSERT INTO total VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET"
        " message_count = message_count + 1, byte_count = byte_count + excluded.byte_count",
        (day, source, record.method, record.size_bytes),
    )


def _alarm(
    connection: sqlite3.Connection,
    source: str,
    sort: str,
    now: float,
    record: EgressRecord | None = None,
) -> None:
    count = connection.execute("SELECT count(*) FROM alarm WHERE source = ?", (source,)).fetchone()
    if count[0] < ALARMS_MAX:
        connection.execute(
            "INSERT OR IGNORE INTO alarm (source, sort, sequence, digest, at)"
            " VALUES (?, ?, ?, ?, ?)",
            (source, sort, record.sequence if record else 0, record.digest if record else "", now),
        )


def _last(connection: sqlite3.Connection, source: str) -> EgressRecord | None:
    found = connection.execute(
        "SELECT line FROM record WHERE source = ? ORDER BY record_id DESC LIMIT 1", (source,)
    ).fetchone()
    return None if found is None else parse_line(found[0])


def _of_digest(connection: sqlite3.Connection, source: str, digest: str) -> EgressRecord | None:
    found = connection.execute(
        "SELECT line FROM record WHERE source = ? AND digest = ?", (source, digest)
    ).fetchone()
    return None if found is None else parse_line(found[0])
