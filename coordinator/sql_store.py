"""The store on SQLite (WAL, synchronous=FULL) and on PostgreSQL, through the same code.

Reads and writes go through SQLAlchemy Core on the tables of `tables`; no row object outlives a
call. On SQLite a write transaction takes the write lock at its start (BEGIN IMMEDIATE), so that it
never fails half-way for another writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from coordinator.core.entries import Entry, entry_from_json, entry_json
from coordinator.core.records import (
    AUDIT_GENESIS,
    COLUMN_WIDTHS,
    AuditRecord,
    Record,
    SegmentRecord,
)
from coordinator.errors import StoreConflict, StoreUnavailable
from coordinator.store import R
from coordinator.tables import METADATA, ROWS, SCHEMA_VERSION, SEGMENT, EntryRow, SchemaRow

BUSY_TIMEOUT_MS = 10_000
PAGE_SIZE_BYTES = 16_384
ADVISORY_LOCK = 0x5045_5249_4D45_5445


def _table(row: Any) -> Table:
    table: Table = row.__table__
    return table


_ENTRY = _table(EntryRow)
_SCHEMA = _table(SchemaRow)
_TABLES: dict[type[Any], Table] = {kind: _table(row) for kind, row in ROWS.items()}
_ENUMS: dict[type[Any], dict[str, type[Enum]]] = {
    kind: {
        name: hint
        for name, hint in get_type_hints(kind).items()
        if isinstance(hint, type) and issubclass(hint, Enum)
    }
    for kind in ROWS
}
_SEGMENT_FIELDS = tuple(f.name for f in fields(SegmentRecord))


def _plain(record: Any) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {k: v.value if isinstance(v, Enum) else v for k, v in values.items()}


def _record(kind: type[R], row: Mapping[str, Any]) -> R:
    values = dict(row)
    for name, enum in _ENUMS[kind].items():
        values[name] = enum(values[name])
    plain = {k: bytes(v) if isinstance(v, memoryview) else v for k, v in values.items()}
    build: Callable[..., R] = kind
    return build(**plain)


class _SqlWriter:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
        self._upsert = dialects[connection.dialect.name]

    def put(self, record: Record) -> None:
        values = _plain(record)
        statement = self._upsert(_TABLES[type(record)]).values(values)
        rest = {k: v for k, v in values.items() if k not in record.KEY}
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=list(record.KEY), set_=rest)
        )

    def add(self, record: Record) -> None:
        self._connection.execute(insert(_TABLES[type(record)]).values(_plain(record)))

    def note(self, at: int, action: str, subject: str) -> None:
        table = _TABLES[AuditRecord]
        last = select(table.c.sequence, table.c.digest).order_by(table.c.sequence.desc()).limit(1)
        found = self._connection.execute(last).first()
        sequence, previous = (found[0] + 1, bytes(found[1])) if found else (1, AUDIT_GENESIS)
        self.add(AuditRecord(sequence, at, action, subject).after(previous))

    def discard(self, kind: type[Record], field: str, below: int) -> None:
        table = _TABLES[kind]
        self._connection.execute(delete(table).where(table.c[field] < below))

    def append(self, entries: Sequence[Entry], digests: Sequence[bytes]) -> None:
        rows = [
            {"sequence": entry.sequence, "body": entry_json(entry), "digest": digest}
            for entry, digest in zip(entries, digests, strict=True)
        ]
        if rows:
            self._connection.execute(insert(_ENTRY), rows)

    def add_segment(self, head: SegmentRecord, columns: Mapping[str, bytes]) -> None:
        values = {**_plain(head), **columns}
        del values["segment_id"]
        self._connection.execute(insert(SEGMENT).values(values))


class SqlStore:
    """See `coordinator.store.Store`."""

    def __init__(self, url: str) -> None:
        self._claim: Connection | None = None
        try:
            self._engine = _engine(url)
            self._prepare()
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise StoreUnavailable(f"the database cannot be opened: {_cause(error)}") from error

    def _prepare(self) -> None:
        with self._begin() as connection:
            METADATA.create_all(connection)
            versions = connection.execute(select(_SCHEMA.c.version)).scalars().all()
            if not versions:
                connection.execute(insert(_SCHEMA).values(version=SCHEMA_VERSION))
        if versions and versions != [SCHEMA_VERSION]:
            raise StoreUnavailable(
                f"the database has schema version {versions[0]}, this program knows "
                f"{SCHEMA_VERSION}; use the program that matches"
            )

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with (
            self._engine.connect().execution_options(immediate=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[_SqlWriter]:
        """See `Store.transaction`."""
        try:
            with self._begin() as connection:
                yield _SqlWriter(connection)
        except IntegrityError as error:
            raise StoreConflict(_cause(error)) from error
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database failed: {_cause(error)}") from error

    def get(self, kind: type[R], *key: object) -> R | None:
        """See `Store.get`."""
        found = self.find(kind, **dict(zip(kind.KEY, key, strict=True)))
        return found[0] if found else None

    def find(self, kind: type[R], **equal: object) -> list[R]:
        """See `Store.find`."""
        table = _TABLES[kind]
        statement = select(table).order_by(*[table.c[name] for name in kind.KEY])
        rows = self._rows(_where(statement, table, equal))
        return [_record(kind, row) for row in rows]

    def entries(self, after: int = 0) -> list[tuple[Entry, bytes]]:
        """See `Store.entries`."""
        statement = select(_ENTRY).where(_ENTRY.c.sequence > after).order_by(_ENTRY.c.sequence)
        return [(entry_from_json(r["body"]), bytes(r["digest"])) for r in self._rows(statement)]

    def segments(self, campaign_id: bytes, **equal: object) -> list[SegmentRecord]:
        """See `Store.segments`."""
        statement = select(*[SEGMENT.c[name] for name in _SEGMENT_FIELDS])
        wanted = {"campaign_id": campaign_id, **equal}
        rows = self._rows(_where(statement, SEGMENT, wanted).order_by(SEGMENT.c.segment_id))
        return [SegmentRecord(**{**row, "digest": bytes(row["digest"])}) for row in rows]

    def columns(self, segment_ids: Sequence[int], names: Sequence[str]) -> list[dict[str, bytes]]:
        """See `Store.columns`."""
        unknown = set(names) - set(COLUMN_WIDTHS)
        if unknown:
            raise KeyError(f"no such column: {sorted(unknown)[0]}")
        chosen = [SEGMENT.c[name] for name in names]
        found: list[dict[str, bytes]] = []
        for segment_id in segment_ids:
            rows = self._rows(select(*chosen).where(SEGMENT.c.segment_id == segment_id))
            found.append({name: bytes(value) for name, value in rows[0].items()})
        return found

    def claim(self) -> None:
        """See `Store.claim`. SQLite is claimed by the lock of the central folder it lies in."""
        if self._engine.dialect.name == "sqlite":
            return
        connection = self._engine.connect()
        question = text("SELECT pg_try_advisory_lock(:key)").bindparams(key=ADVISORY_LOCK)
        if not connection.execute(question).scalar():
            connection.close()
            raise StoreConflict("another coordinator serves this database; stop it first")
        connection.commit()
        self._claim = connection

    def check(self) -> list[str]:
        """See `Store.check`."""
        if self._engine.dialect.name != "sqlite":
            return []
        rows = self._rows(text("PRAGMA quick_check"))
        return [row["quick_check"] for row in rows if row["quick_check"] != "ok"]

    def close(self) -> None:
        """See `Store.close`."""
        if self._claim is not None:
            # Said aloud: a connection that goes back to the pool would keep the lock.
            self._claim.execute(text("SELECT pg_advisory_unlock_all()"))
            self._claim.close()
            self._claim = None
        self._engine.dispose()

    def _rows(self, statement: Any) -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                return [dict(row) for row in connection.execute(statement).mappings()]
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database failed: {_cause(error)}") from error


def _where(statement: Any, table: Table, equal: Mapping[str, object]) -> Any:
    for name, value in equal.items():
        plain = value.value if isinstance(value, Enum) else value
        statement = statement.where(table.c[name] == plain)
    return statement


def _cause(error: BaseException) -> str:
    # The driver's own sentence; SQLAlchemy's would repeat the statement and its values.
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).splitlines()[0]


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, hide_parameters=True)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by `_begin_sqlite`, not by the driver.
    connection.isolation_level = None
    for pragma in (
        f"page_size={PAGE_SIZE_BYTES}",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
