"""The seam to the database: what a store must do, and how it is opened by URL.

One writer at a time: `serve` holds the folder's lock, and a transaction is taken whole or not at
all. Two shapes live in one database: few precious records and ledger entries as rows, many
candidates as column segments, one row per batch. The in-memory peer keeps the same promises without
durability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from coordinator.core.entries import Entry
from coordinator.core.records import Record, SegmentRecord

R = TypeVar("R", bound=Record)


class Writer(Protocol):
    """What may happen inside a transaction."""

    def put(self, record: Record) -> None:
        """Writes a record, in place of an earlier one with the same key."""

    def add(self, record: Record) -> None:
        """Writes a new record; raises `StoreConflict` at once or at commit when the key exists."""

    def note(self, at: int, action: str, subject: str) -> None:
        """Adds a line to the audit log.

        Args:
            at: Seconds since 1970-01-01 UTC.
            action: What happened, for example `enrolled`.
            subject: To whom or what: names and ids of machines, campaigns, versions; no data.
        """

    def discard(self, kind: type[Record], field: str, below: int) -> None:
        """Deletes the records of a kind whose number in `field` is below a bound."""

    def append(self, entries: Sequence[Entry], digests: Sequence[bytes]) -> None:
        """Adds ledger entries; raises `StoreConflict` when a position is taken already.

        Args:
            entries: In order, the first at the position after the last stored one.
            digests: Chain digest after each entry, 32 bytes.
        """

    def add_segment(self, head: SegmentRecord, columns: Mapping[str, bytes]) -> None:
        """Stores one batch of candidates; raises `StoreConflict` when its key exists."""


class Store(Protocol):
    """Everything the coordinator remembers. All calls are synchronous and thread-safe."""

    def transaction(self) -> AbstractContextManager[Writer]:
        """Opens a transaction: durable when the block ends, undone when it raises."""

    def get(self, kind: type[R], *key: object) -> R | None:
        """Returns the record with that key (in the order of `KEY`)."""

    def find(self, kind: type[R], **equal: object) -> list[R]:
        """Returns the records whose fields equal the given values, in the order of their keys."""

    def entries(self, after: int = 0) -> list[tuple[Entry, bytes]]:
        """Returns ledger entries after a position, each with its chain digest."""

    def segments(self, campaign_id: bytes, **equal: object) -> list[SegmentRecord]:
        """Returns the heads of a campaign's stored batches in the order they came."""

    def columns(self, segment_ids: Sequence[int], names: Sequence[str]) -> list[dict[str, bytes]]:
        """Returns the named columns of segments, in the order of `segment_ids`."""

    def claim(self) -> None:
        """Makes this process the only one that drives campaigns on this database.

        The claim ends with `close` or with the process.

        Raises:
            StoreConflict: Another process holds the claim.
        """

    def check(self) -> list[str]:
        """Returns what the database itself finds wrong with its files; empty when sound."""

    def close(self) -> None:
        """Releases files and connections."""


def open_store(url: str) -> Store:
    """Opens a store and makes its tables where they are missing.

    Args:
        url: `memory:`, `sqlite:///path` or `postgresql+psycopg://…`.

    Raises:
        StoreUnavailable: The database cannot be opened or is of another version.
    """
    if url == "memory:":
        from coordinator.memory_store import MemoryStore

        return MemoryStore()
    from coordinator.sql_store import SqlStore

    return SqlStore(url)


def key_of(record: Any) -> tuple[object, ...]:
    """Returns the values of a record's key fields."""
    return tuple(getattr(record, name) for name in record.KEY)
