"""One SQLite file: one writer connection on its own thread, readers that never block it.

SQLite has one writer. Threads that compete for it wait in back-off, which ruins the tail of the
latencies; so all writes of a process queue for one connection, and each is one immediate
transaction that is on disk (`synchronous=FULL`) before the call returns.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, Insert, create_engine, event
from sqlalchemy.pool import QueuePool

from review_portal.errors import StoreMissing, StoreNewer
from review_portal.store.tables import SCHEMA_VERSION, metadata

FILE_NAME = "labels.db"
BUSY_TIMEOUT_MILLISECONDS = 20_000
READER_COUNT = 3

Returned = TypeVar("Returned")
Work = Callable[[Connection], Returned]


class Database:
    """The site's SQLite file.

    Args:
        path: The database file.
        read_only: Open it beside a portal that writes.

    Raises:
        StoreMissing: Read-only, and there is no file.
        StoreNewer: A newer portal wrote the file.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise StoreMissing(f"{path} does not exist; run `perimeter-portal init` first")
        self.path = path
        self._read_engine = _engine(path, read_only=True)
        self._write_engine = None if read_only else _engine(path, read_only=False)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READER_COUNT, thread_name_prefix="store-reader")
        if self._write_engine is not None:
            self._create(self._write_engine)
        self._check_version()

    def _create(self, engine: Engine) -> None:
        fresh = not self.path.exists()
        with engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version < SCHEMA_VERSION:
                # Newer formats only add tables so far; those that are there stay as they are.
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.commit()
        if fresh:
            self.path.chmod(0o600)

    def _check_version(self) -> None:
        version = self.read(lambda c: c.exec_driver_sql("PRAGMA user_version").scalar_one())
        if version > SCHEMA_VERSION:
            self.close()
            raise StoreNewer(
                f"{self.path} has format {version}, this portal knows {SCHEMA_VERSION}"
            )
        if version == 0:
            self.close()
            raise StoreMissing(f"{self.path} holds no label store; run `perimeter-portal init`")

    def read(self, work: Work[Returned]) -> Returned:
        """Runs `work` on a snapshot, on the calling thread."""
        with self._read_engine.connect() as connection:
            return work(connection)

    def write(self, work: Work[Returned]) -> Returned:
        """Runs `work` as one durable transaction; an exception undoes all of it."""
        return self._writer.submit(self._transact, work).result()

    async def read_soon(self, work: Work[Returned]) -> Returned:
        """Like `read`, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read, work)

    async def write_soon(self, work: Work[Returned]) -> Returned:
        """Like `write`, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transact, work)

    def write_later(self, work: Work[None]) -> None:
        """Queues `work` without waiting; for notes whose loss in a crash harms nobody."""
        self._writer.submit(self._transact, work)

    def _transact(self, work: Work[Returned]) -> Returned:
        if self._write_engine is None:
            raise StoreMissing(f"{self.path} was opened read-only")
        with self._write_engine.begin() as connection:
            return work(connection)

    def truncate_log(self) -> None:
        """Empties the write-ahead log, so that what was removed does not live on in it.

        Readers that are at work keep it; the next call empties it then.
        """
        self._writer.submit(self._truncate).result()

    def _truncate(self) -> None:
        if self._write_engine is None:
            raise StoreMissing(f"{self.path} was opened read-only")
        raw = self._write_engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.fetchall()
        finally:
            raw.close()

    def close(self) -> None:
        """Finishes queued writes and closes the file."""
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        if self._write_engine is not None:
            self._write_engine.dispose()


def insert_row(connection: Connection, statement: Insert) -> int:
    """Runs an insert of one row and returns the number of the row."""
    return int(connection.execute(statement).lastrowid)


def _engine(path: Path, *, read_only: bool) -> Engine:
    uri = f"file:{path}?mode={'ro' if read_only else 'rwc'}"

    def connect() -> sqlite3.Connection:
        # Explicit transactions: the driver's own would start deferred ones and upgrade them late.
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
        connection.execute("PRAGMA temp_store = MEMORY")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            return connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = FAST")
        return connection

    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=8, max_overflow=8
    )
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
