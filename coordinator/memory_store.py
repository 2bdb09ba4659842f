"""The in-memory peer of the SQL store: same promises, nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from coordinator.core.entries import Entry
from coordinator.core.records import AUDIT_GENESIS, AuditRecord, Record, SegmentRecord
from coordinator.errors import StoreConflict
from coordinator.store import R, key_of


class _State:
    """All rows; a transaction works on a shallow copy and swaps it in."""

    def __init__(self, origin: _State | None = None) -> None:
        tables = origin.tables if origin else {}
        self.tables: dict[type[Any], dict[tuple[object, ...], Any]] = {
            kind: dict(rows) for kind, rows in tables.items()
        }
        self.entries: list[tuple[Entry, bytes]] = list(origin.entries) if origin else []
        self.segments: dict[tuple[object, ...], SegmentRecord] = (
            dict(origin.segments) if origin else {}
        )
        self.columns: dict[int, Mapping[str, bytes]] = dict(origin.columns) if origin else {}


class _MemoryWriter:
    def __init__(self, state: _State) -> None:
        self._state = state

    def put(self, record: Record) -> None:
        self._state.tables.setdefault(type(record), {})[key_of(record)] = record

    def add(self, record: Record) -> None:
        if key_of(record) in self._state.tables.get(type(record), {}):
            raise StoreConflict(f"{type(record).__name__} {key_of(record)} exists already")
        self.put(record)

    def note(self, at: int, action: str, subject: str) -> None:
        lines = list(self._state.tables.get(AuditRecord, {}).values())
        previous = lines[-1].digest if lines else AUDIT_GENESIS
        self.add(AuditRecord(len(lines) + 1, at, action, subject).after(previous))

    def discard(self, kind: type[Any], field: str, below: int) -> None:
        rows = self._state.tables.get(kind, {})
        self._state.tables[kind] = {k: r for k, r in rows.items() if getattr(r, field) >= below}

    def append(self, entries: Sequence[Entry], digests: Sequence[bytes]) -> None:
        for entry, digest in zip(entries, digests, strict=True):
            last = self._state.entries[-1][0].sequence if self._state.entries else 0
            if entry.sequence <= last:
                raise StoreConflict(f"ledger position {entry.sequence} is taken")
            self._state.entries.append((entry, digest))

    def add_segment(self, head: SegmentRecord, columns: Mapping[str, bytes]) -> None:
        if key_of(head) in self._state.segments:
            raise StoreConflict(f"batch {head.sequence} of {head.agent_name} exists already")
        segment_id = len(self._state.columns) + 1
        self._state.segments[key_of(head)] = replace(head, segment_id=segment_id)
        self._state.columns[segment_id] = dict(columns)


def _matches(record: object, equal: Mapping[str, object]) -> bool:
    return all(getattr(record, name) == value for name, value in equal.items())


class MemoryStore:
    """See `coordinator.store.Store`."""

    def __init__(self) -> None:
        self._state = _State()
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[_MemoryWriter]:
        """See `Store.transaction`."""
        with self._lock:
            draft = _State(self._state)
            yield _MemoryWriter(draft)
            self._state = draft

    def get(self, kind: type[R], *key: object) -> R | None:
        """See `Store.get`."""
        found: R | None = self._read(lambda state: state.tables.get(kind, {}).get(key))
        return found

    def find(self, kind: type[R], **equal: object) -> list[R]:
        """See `Store.find`."""
        rows: list[R] = self._read(lambda state: list(state.tables.get(kind, {}).values()))
        return sorted((row for row in rows if _matches(row, equal)), key=_sort_key)

    def entries(self, after: int = 0) -> list[tuple[Entry, bytes]]:
        """See `Store.entries`."""
        found: list[tuple[Entry, bytes]] = self._read(lambda state: state.entries)
        return [pair for pair in found if pair[0].sequence > after]

    def segments(self, campaign_id: bytes, **equal: object) -> list[SegmentRecord]:
        """See `Store.segments`."""
        heads: list[SegmentRecord] = self._read(lambda state: list(state.segments.values()))
        wanted = {"campaign_id": campaign_id, **equal}
        return [head for head in heads if _matches(head, wanted)]

    def columns(self, segment_ids: Sequence[int], names: Sequence[str]) -> list[dict[str, bytes]]:
        """See `Store.columns`."""
        stored: dict[int, Mapping[str, bytes]] = self._read(lambda state: state.columns)
        return [{name: stored[i][name] for name in names} for i in segment_ids]

    def claim(self) -> None:
        """See `Store.claim`; memory has one process by nature."""

    def check(self) -> list[str]:
        """See `Store.check`; memory is always sound."""
        return []

    def close(self) -> None:
        """See `Store.close`; there is nothing to release."""

    def _read(self, question: Callable[[_State], Any]) -> Any:
        with self._lock:
            return question(self._state)


def _sort_key(record: Any) -> tuple[object, ...]:
    return key_of(record)
