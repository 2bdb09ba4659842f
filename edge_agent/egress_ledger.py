"""The ledger of everything that left: a hash-chained file that the site lead can read and check.

One JSON line a message, written and flushed to disk before its first byte goes out. Each line holds
the digest of the one before; the first line of a file continues the file before it.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError, StorageFull

START = "0" * 64
"""Digest before the first message."""
_FILE_PATTERN = "[0-9]*.jsonl"


@dataclass(frozen=True)
class EgressRecord:
    """One message that left.

    Attributes:
        sequence: Position in the ledger, from 1.
        at: Seconds since 1970.
        peer: `coordinator` or `enrollment`.
        method: gRPC method, such as `perimeter.v1.GrantService/ListGrants`.
        size_bytes: Size of the message.
        total_bytes: Sum of the sizes up to and with this message.
        payload: The message in base64; empty for enrolment, which carries a secret.
        payload_sha256: Digest of the message in hex.
        previous: Digest of the record before.
        digest: SHA-256 over all other fields.
    """

    sequence: int
    at: int
    peer: str
    method: str
    size_bytes: int
    total_bytes: int
    payload: str
    payload_sha256: str
    previous: str
    digest: str = ""

    def computed_digest(self) -> str:
        """Returns the digest that the other fields give."""
        fields = {name: value for name, value in asdict(self).items() if name != "digest"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def raw_payload(self) -> bytes:
        """Returns the message as it was sent."""
        return base64.b64decode(self.payload)


@dataclass(frozen=True)
class Verification:
    """Whether the chain is whole.

    Attributes:
        message_count: Messages that were checked.
        byte_count: Sum of their sizes.
        fault: Empty, or what is wrong at which message.
    """

    message_count: int
    byte_count: int
    fault: str = ""


class EgressLedger:
    """Appends to the ledger.

    Args:
        folder: Folder of the ledger's files; made when missing.
        file_bytes_max: Size at which a new file begins.
    """

    def __init__(self, folder: Path, *, file_bytes_max: int = 64 << 20) -> None:
        self._folder = folder
        self._file_bytes_max = file_bytes_max
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._repair()
        self._last = last_record(folder)

    def append(self, peer: str, method: str, message: bytes, *, at: int) -> EgressRecord:
        """Records a message durably.

        Raises:
            StorageFull: There is no space; the message must not be sent.
        """
        last = self._last
        secret = method.endswith("/Enroll")
        unsealed = EgressRecord(
            sequence=last.sequence + 1 if last else 1,
            at=at,
            peer=peer,
            method=method,
            size_bytes=len(message),
            total_bytes=(last.total_bytes if last else 0) + len(message),
            payload="" if secret else base64.b64encode(message).decode(),
            payload_sha256=hashlib.sha256(message).hexdigest(),
            previous=last.digest if last else START,
        )
        record = EgressRecord(**{**asdict(unsealed), "digest": unsealed.computed_digest()})
        line = json.dumps(asdict(record), sort_keys=True).encode() + b"\n"
        append_durably(self._file_for(record, len(line)), line)
        self._last = record
        return record

    def _file_for(self, record: EgressRecord, length: int) -> Path:
        files = ledger_files(self._folder)
        if files and files[-1].stat().st_size + length <= self._file_bytes_max:
            return files[-1]
        return self._folder / f"{record.sequence:012d}.jsonl"

    def _repair(self) -> None:
        """Cuts a line that a crash left half-written; its message was never sent."""
        files = ledger_files(self._folder)
        if not files:
            return
        with files[-1].open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def ledger_files(folder: Path) -> list[Path]:
    """Returns the ledger's files, oldest first."""
    return sorted(folder.glob(_FILE_PATTERN))


def records(folder: Path) -> Iterator[EgressRecord]:
    """Yields all records, oldest first.

    Raises:
        StorageError: A line is not a record.
    """
    for path in ledger_files(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _parsed(line, path, number)


def last_record(folder: Path) -> EgressRecord | None:
    """Returns the newest record, or None for an empty ledger."""
    for path in reversed(ledger_files(folder)):
        with path.open("rb") as file:
            lines = file.readlines()
        if lines:
            return _parsed(lines[-1], path, len(lines))
    return None


def verify(folder: Path) -> Verification:
    """Checks every link of the chain. Edits, removals and insertions show; a cut tail does not."""
    previous = None
    count = size = 0
    try:
        for record in records(folder):
            fault = _fault(record, previous)
            if fault:
                return Verification(count, size, f"message {record.sequence}: {fault}")
            previous = record
            count += 1
            size += record.size_bytes
    except StorageError as error:
        return Verification(count, size, str(error))
    return Verification(count, size)


def _fault(record: EgressRecord, previous: EgressRecord | None) -> str:
    if record.computed_digest() != record.digest:
        return "the record was changed"
    if record.payload and hashlib.sha256(record.raw_payload()).hexdigest() != record.payload_sha256:
        return "the payload was changed"
    if previous is None:
        return "" if record.sequence > 1 or record.previous == START else "the start is missing"
    if record.previous != previous.digest or record.sequence != previous.sequence + 1:
        return "a record before it was removed, inserted or changed"
    if record.total_bytes != previous.total_bytes + record.size_bytes:
        return "the sum of sizes is wrong"
    return ""


def _parsed(line: bytes, path: Path, number: int) -> EgressRecord:
    try:
        values: dict[str, Any] = json.loads(line)
        return EgressRecord(**values)
    except (ValueError, TypeError):
        raise StorageError(f"{path.name}, line {number} is not a record of the ledger") from None


def append_durably(path: Path, line: bytes) -> None:
    """Appends a line that is on disk, whole, when this returns; or none of it.

    Raises:
        StorageFull: There is no space.
    """
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_whole(descriptor, line)
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise StorageFull(
                f"no space for {path}: {error.strerror}; "
                "nothing is sent or done that must stand there first, until there is"
            ) from None
    finally:
        os.close(descriptor)
    if fresh:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _write_whole(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
