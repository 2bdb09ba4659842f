"""The device's own audit log: who was shown raw words, what was deleted and when.

A hash-chained file of JSON lines, `<state>/audit.jsonl`. It holds ids, counts and stable words,
never content, and stays on the device; of an unmasking the portal gets the digest of its line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.egress_ledger import append_durably
from edge_agent.errors import StorageError

FILE_NAME = "audit.jsonl"
START = "0" * 64
"""Digest before the first record."""


@dataclass(frozen=True)
class AuditRecord:
    """Something that happened.

    Attributes:
        sequence: Position in the log, from 1.
        at: Seconds since 1970.
        action: What, as noun.verb.
        subject: To what: an id in hex, or a name.
        detail: Small facts; never content.
        previous: Digest of the record before.
        digest: SHA-256 over all other fields, in hex.
    """

    sequence: int
    at: int
    action: str
    subject: str
    detail: Mapping[str, int | str]
    previous: str
    digest: str = ""

    def computed_digest(self) -> str:
        """Returns the digest that the other fields give."""
        fields = {name: value for name, value in asdict(self).items() if name != "digest"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class AuditLog:
    """Appends to the log.

    Args:
        state_folder: The device's state folder.

    Raises:
        StorageError: The log's last line is no record.
    """

    def __init__(self, state_folder: Path) -> None:
        state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = state_folder / FILE_NAME
        _cut_half_line(self._path)
        self._last: AuditRecord | None = None
        for record in records(state_folder):
            self._last = record

    def append(
        self, action: str, subject: str, detail: Mapping[str, int | str], *, at: float
    ) -> AuditRecord:
        """Records something durably, before it happens.

        Raises:
            StorageFull: There is no space; what was to be recorded must not happen.
        """
        last = self._last
        unsealed = AuditRecord(
            sequence=last.sequence + 1 if last else 1,
            at=int(at),
            action=action,
            subject=subject,
            detail=dict(detail),
            previous=last.digest if last else START,
        )
        record = AuditRecord(**{**asdict(unsealed), "digest": unsealed.computed_digest()})
        append_durably(self._path, json.dumps(asdict(record), sort_keys=True).encode() + b"\n")
        self._last = record
        return record


def records(state_folder: Path) -> Iterator[AuditRecord]:
    """Yields all records, oldest first.

    Raises:
        StorageError: A line is not a record.
    """
    path = state_folder / FILE_NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield AuditRecord(**json.loads(line))
            except (ValueError, TypeError):
                raise StorageError(f"{path}, line {number} is no record of the audit log") from None


def verify(state_folder: Path) -> tuple[int, str]:
    """Returns how many records hold, and what is wrong behind them; empty when all is well.

    Edits, removals and insertions show; a cut tail does not, but the portal holds digests of
    unmaskings, so that those that were cut off show there.
    """
    previous, count = START, 0
    try:
        for record in records(state_folder):
            if record.computed_digest() != record.digest:
                return count, f"record {count + 1} was changed"
            if record.previous != previous or record.sequence != count + 1:
                return count, f"a record before number {record.sequence} was removed or inserted"
            previous, count = record.digest, count + 1
    except StorageError as error:
        return count, str(error)
    return count, ""


def _cut_half_line(path: Path) -> None:
    """Cuts a line that a crash left half-written; what it was about did not happen."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())
