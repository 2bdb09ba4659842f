"""One record of an egress ledger: a JSON line that names the digest of the line before. Pure.

Devices and the portal write the same form, so one check and one page serve both.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

START = "0" * 64
"""Digest before the first record."""
_LINE_BYTES_MAX = 1 << 20
_NUMBER_MAX = 2**63 - 1


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
    digest: str

    @property
    def line(self) -> bytes:
        """The record as it stands in a ledger, without the line break."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def raw_payload(self) -> bytes:
        """Returns the message as it was sent."""
        return base64.b64decode(self.payload)


@dataclass(frozen=True)
class Outgoing:
    """A message on its way out.

    Attributes:
        at: Seconds since 1970.
        peer: `coordinator` or `enrollment`.
        method: gRPC method.
        message: Its bytes.
    """

    at: int
    peer: str
    method: str
    message: bytes


def following(previous: EgressRecord | None, sent: Outgoing) -> EgressRecord:
    """Returns the record of a message after the record before it.

    >>> first = following(None, Outgoing(7, "coordinator", "perimeter.v1.S/M", b"ab"))
    >>> following(first, Outgoing(8, "coordinator", "perimeter.v1.S/M", b"c")).total_bytes
    3
    """
    is_secret = sent.method.endswith("/Enroll")
    values: dict[str, Any] = {
        "sequence": previous.sequence + 1 if previous else 1,
        "at": sent.at,
        "peer": sent.peer,
        "method": sent.method,
        "size_bytes": len(sent.message),
        "total_bytes": (previous.total_bytes if previous else 0) + len(sent.message),
        "payload": "" if is_secret else base64.b64encode(sent.message).decode(),
        "payload_sha256": hashlib.sha256(sent.message).hexdigest(),
        "previous": previous.digest if previous else START,
    }
    return EgressRecord(**values, digest=_digest(values))


def parse_line(line: bytes) -> EgressRecord | None:
    """Returns the record of a line, or None when it is none.

    A record whose fields do not give its digest is still a record; `fault_of` tells.

    >>> parse_line(b"{}") is None
    True
    """
    if len(line) > _LINE_BYTES_MAX:
        return None
    try:
        values = json.loads(line)
        record = EgressRecord(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    types = {"int": int, "str": str}
    if any(type(values[f.name]) is not types[str(f.type)] for f in fields(EgressRecord)):
        return None
    numbers = (record.sequence, record.at, record.size_bytes, record.total_bytes)
    if not all(0 <= number <= _NUMBER_MAX for number in numbers) or record.sequence == 0:
        return None
    hexes = (record.digest, record.previous, record.payload_sha256)
    if any(len(value) != 64 or not set(value) <= set("0123456789abcdef") for value in hexes):
        return None
    # Only one spelling of a record is taken, so that equal records are equal bytes.
    return record if record.line == line else None


def fault_of(record: EgressRecord) -> str:
    """Returns what is wrong inside a record: empty, `CHANGED` or `PAYLOAD`."""
    values = {name: value for name, value in asdict(record).items() if name != "digest"}
    if _digest(values) != record.digest:
        return "CHANGED"
    if not record.payload:
        return "" if record.method.endswith("/Enroll") or record.size_bytes == 0 else "PAYLOAD"
    try:
        message = base64.b64decode(record.payload, validate=True)
    except ValueError:
        return "PAYLOAD"
    whole = len(message) == record.size_bytes
    return "" if whole and _sha256(message) == record.payload_sha256 else "PAYLOAD"


def chain_fault(
    record: EgressRecord, find: Callable[[str], EgressRecord | None], *, is_only_child: bool
) -> str:
    """Returns how a record fails to continue its ledger: empty, `GAP`, `SUM` or `FORK`.

    Args:
        record: The record.
        find: Returns the record of a digest, or None.
        is_only_child: Whether no other record of the ledger continues the same one.
    """
    if not is_only_child:
        return "FORK"
    if record.sequence == 1 or record.previous == START:
        is_start = record.sequence == 1 and record.previous == START
        return "" if is_start and record.total_bytes == record.size_bytes else "GAP"
    before = find(record.previous)
    if before is None or before.sequence != record.sequence - 1:
        return "GAP"
    return "" if before.total_bytes + record.size_bytes == record.total_bytes else "SUM"


def _digest(values: dict[str, Any]) -> str:
    return _sha256(json.dumps(values, sort_keys=True).encode())


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
