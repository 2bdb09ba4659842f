"""One SQLite file, one connection, one writer. Errors of the disk become errors of the agent.

WAL with `synchronous=FULL`: what was committed is there after a power loss, because a sample that
was pushed and acknowledged, and a grant that was pulled, must not vanish.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError, StorageFull

SCHEMA_VERSION = 2
_OLDEST_VERSION = 1
_SCHEMA = """
CREATE TABLE campaign (
    campaign_id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    campaign_id BLOB NOT NULL,
    candidate_id BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    scored_version INTEGER NOT NULL DEFAULT 0,
    content BLOB,
    view_policy TEXT NOT NULL DEFAULT '',
    view BLOB,
    held_reason TEXT NOT NULL DEFAULT '',
    score BLOB,
    arrived_at REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sample_waiting ON sample (campaign_id, state, id);
CREATE TABLE pool (
    campaign_id BLOB PRIMARY KEY,
    model_version INTEGER NOT NULL,
    replaces INTEGER NOT NULL,
    class_counts BLOB NOT NULL,
    top_probability_sum INTEGER NOT NULL,
    top_probability_square_sum INTEGER NOT NULL,
    next_sequence INTEGER NOT NULL,
    report_number INTEGER NOT NULL,
    reported TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    campaign_id BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    model_version INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    body BLOB NOT NULL,
    refused TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign_id, sequence)
) STRICT;
CREATE TABLE grant_book (
    grant_id BLOB PRIMARY KEY,
    ledger_sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    stage INTEGER NOT NULL DEFAULT 0,
    outcome INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    settled_at REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_stage ON grant_book (stage, ledger_sequence);
CREATE TABLE cursor (source TEXT PRIMARY KEY, position BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE seen_file (
    file_id BLOB PRIMARY KEY, source TEXT NOT NULL, stamp BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE refusal (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, source TEXT NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, location BLOB NOT NULL
) STRICT;
CREATE TABLE installed (
    campaign_id BLOB PRIMARY KEY,
    current INTEGER NOT NULL, previous INTEGER NOT NULL,
    refused INTEGER NOT NULL, refused_text TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL, unreported BLOB, report_number INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE key_check (one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL) STRICT;
CREATE TABLE campaign_key (campaign_id BLOB PRIMARY KEY, sealed BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE shredding (campaign_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE condition (name TEXT PRIMARY KEY, at REAL NOT NULL, text TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
"""


_BINDING = """
CREATE TABLE IF NOT EXISTS binding (
    grant_id BLOB PRIMARY KEY, candidate_id BLOB NOT NULL
) STRICT, WITHOUT ROWID
"""


class Database:
    """The queue's file. Safe to share between threads; transactions run one after another.

    Args:
        path: The file; made with its tables when missing.
        bytes_max: The file does not grow past this; further writes raise `StorageFull`.
        read_only: True for looking on while a daemon runs.
    """

    def __init__(self, path: Path, *, bytes_max: int = 4 << 30, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = _opened(path, read_only=read_only)
            if not read_only:
                self._prepare(bytes_max)
        except sqlite3.Error as error:
            raise _translated(error, path) from None

    def _prepare(self, bytes_max: int) -> None:
        run = self._connection.execute
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",
            "temp_store=MEMORY",
            "cache_size=-4096",
            "journal_size_limit=16777216",
        ):
            run(f"PRAGMA {pragma}")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )
        elif not _OLDEST_VERSION <= version <= SCHEMA_VERSION:
            raise StorageError(
                f"{self.path} has layout {version}, this program knows {SCHEMA_VERSION}; "
                "use the version of the agent that wrote it"
            )
        # Added later and by itself, so that queues from before go on without a new layout.
        run(_BINDING)
        page_bytes = run("PRAGMA page_size").fetchone()[0]
        run(f"PRAGMA max_page_count={max(64, bytes_max // page_bytes)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits everything inside, or nothing. Nested ones join the outer one.

        Raises:
            StorageFull: The disk or the queue is full; nothing was written.
            StorageError: The file cannot be used.
        """
        with self._lock:
            if self._depth:
                yield
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise _translated(error, self.path) from None
            except BaseException:
                self._undo()
                raise
            finally:
                self._depth = 0

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Runs one writing statement in its own or the open transaction; returns rows changed."""
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

    def write_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs one writing statement for each row."""
        with self.transaction():
            self._connection.executemany(statement, rows)

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns all rows of a query.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _translated(error, self.path) from None

    def layout(self) -> int:
        """Number of the file's layout."""
        ((version,),) = self.read("PRAGMA user_version")
        return int(version)

    def has_table(self, name: str) -> bool:
        """True when the file has a table of that name."""
        return bool(self.read("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)))

    def truncate_log(self) -> None:
        """Empties the write-ahead log, so that what was overwritten does not live on in it."""
        self.read("PRAGMA wal_checkpoint(TRUNCATE)")

    def size_bytes(self) -> int:
        """Bytes in use inside the file, free pages not counted."""
        ((pages,),) = self.read("PRAGMA page_count")
        ((free,),) = self.read("PRAGMA freelist_count")
        ((width,),) = self.read("PRAGMA page_size")
        return int((pages - free) * width)

    def close(self) -> None:
        """Closes the file; the last commit stays."""
        with self._lock:
            self._connection.close()


def _opened(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    address = f"file:{path}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(
        address, uri=True, timeout=10, isolation_level=None, check_same_thread=False
    )


def _translated(error: sqlite3.Error, path: Path) -> StorageError:
    """Says a disk's trouble in words of the agent; SQLite reports a full disk in several ways."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StorageFull(
            f"no space for the queue {path}: {error}; free space on this disk or raise "
            "limits.queue_bytes_max. Nothing was half-written and work goes on once there is space"
        )
    return StorageError(f"the queue {path} cannot be used: {error}")
