"""Entries of the ledger and their one byte form. What an entry does is decided in `ledger`."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any

TRILLION = 10**12


class GrantState(StrEnum):
    """Life of a grant. `RELEASED` is passing; the last five are final."""

    GRANTED = "GRANTED"
    RELEASED = "RELEASED"
    LABELED = "LABELED"
    ABSTAINED = "ABSTAINED"
    EXPIRED = "EXPIRED"
    DECLINED = "DECLINED"
    REFUSED = "REFUSED"


FINAL_STATES = frozenset(GrantState) - {GrantState.GRANTED, GrantState.RELEASED}


class GrantReason(IntEnum):
    """Why a candidate was granted; the numbers are those of the wire and are signed."""

    USEFUL = 1
    EXPLORE = 2
    OVERLAP = 3
    CLASS_FLOOR = 4


class Verdict(StrEnum):
    """Whether the expert kept the class that the model suggested."""

    UNKNOWN = "UNKNOWN"
    STOOD = "STOOD"
    CORRECTED = "CORRECTED"


@dataclass(frozen=True)
class GrantTerms:
    """What a grant permits; never changes.

    Attributes:
        grant_id: 16 random bytes.
        campaign_id: 16 bytes.
        candidate_id: 16 bytes, opaque.
        site_id: Site that holds the sample.
        agent_name: Agent of that site which offered the candidate.
        model_version: Version whose scores led here.
        cycle: Cycle of the campaign, from 1.
        reason: Why it was granted.
        expires_at: Seconds since 1970-01-01 UTC.
        inclusion_ppm: The same in parts per million, in older entries; else 0.
        inclusion_trillionths: Probability of the draw in 1e-12 for EXPLORE, else 0; a pool of
            millions needs the digits.
    """

    grant_id: bytes
    campaign_id: bytes
    candidate_id: bytes
    site_id: str
    agent_name: str
    model_version: int
    cycle: int
    reason: GrantReason
    expires_at: int
    inclusion_ppm: int = 0
    inclusion_trillionths: int = 0

    @property
    def inclusion_probability(self) -> float:
        """Probability of the draw of an EXPLORE grant, above 0.

        >>> from dataclasses import replace
        >>> terms = GrantTerms(b"", b"", b"", "s", "a", 1, 1, GrantReason.EXPLORE, 9)
        >>> replace(terms, inclusion_ppm=3).inclusion_probability
        3e-06
        >>> replace(terms, inclusion_trillionths=3).inclusion_probability
        3e-12
        """
        return (self.inclusion_trillionths or max(self.inclusion_ppm, 1) * 10**6) / TRILLION


@dataclass(frozen=True)
class Funded:
    """Sets or raises the budget of a campaign; counts in labels, `at` in seconds since 1970."""

    sequence: int
    at: int
    campaign_id: bytes
    budget_labels: int
    site_cap_labels: int
    overlap_count: int


@dataclass(frozen=True)
class Granted:
    """Reserves one label."""

    sequence: int
    at: int
    terms: GrantTerms


@dataclass(frozen=True)
class Settled:
    """Moves a grant to a new state; a final one spends or returns its label."""

    sequence: int
    at: int
    grant_id: bytes
    state: GrantState
    verdict: Verdict = Verdict.UNKNOWN
    class_index_plus_one: int = 0
    decision_seconds: int = 0


@dataclass(frozen=True)
class Restored:
    """Marks that older entries were put back: positions and grants after them were lost.

    Attributes:
        sequence: Above every position that was ever used, so that it may leave a gap.
        at: Seconds since 1970-01-01 UTC.
        campaign_id: 16 bytes.
        lost_label_count: Labels that sites may have spent on grants or by outcomes which are not in
            the entries. They are written off.
    """

    sequence: int
    at: int
    campaign_id: bytes
    lost_label_count: int


Entry = Funded | Granted | Settled | Restored
_KINDS: dict[str, type[Funded] | type[Granted] | type[Settled] | type[Restored]] = {
    "FUNDED": Funded,
    "GRANTED": Granted,
    "SETTLED": Settled,
    "RESTORED": Restored,
}
_ID_FIELDS = ("grant_id", "campaign_id", "candidate_id")


def entry_kind(entry: Entry) -> str:
    """Returns FUNDED, GRANTED, SETTLED or RESTORED."""
    return type(entry).__name__.upper()


def entry_json(entry: Entry) -> str:
    """Returns the one JSON form of an entry: sorted keys, no spaces, ids in hex.

    >>> entry_json(Funded(1, 0, bytes(16), 5, 5, 1))[:37]
    '{"at":0,"budget_labels":5,"campaign_i'
    """
    fields = asdict(entry)
    fields.update(fields.pop("terms", {}))
    if not fields.get("inclusion_trillionths", 1):
        # Entries from before this field keep the bytes that their digest speaks for.
        del fields["inclusion_trillionths"]
    for name in _ID_FIELDS:
        if name in fields:
            fields[name] = fields[name].hex()
    return json.dumps({"kind": entry_kind(entry), **fields}, sort_keys=True, separators=(",", ":"))


def entry_from_json(raw: str) -> Entry:
    """Reads what `entry_json` wrote; raises `KeyError`, `TypeError` or `ValueError` for other text.

    >>> entry = Funded(1, 0, bytes(16), 5, 5, 1)
    >>> entry_from_json(entry_json(entry)) == entry
    True
    """
    fields: dict[str, Any] = json.loads(raw)
    kind = _KINDS[fields.pop("kind")]
    for name in _ID_FIELDS:
        if name in fields:
            fields[name] = bytes.fromhex(fields[name])
    if kind is Granted:
        head = {name: fields.pop(name) for name in ("sequence", "at")}
        fields["reason"] = GrantReason(fields["reason"])
        return Granted(**head, terms=GrantTerms(**fields))
    if kind is Settled:
        fields["state"] = GrantState(fields["state"])
        fields["verdict"] = Verdict(fields["verdict"])
    return kind(**fields)


def chain_digest(previous: bytes, entry: Entry) -> bytes:
    """Returns SHA-256 over the previous digest and the entry: no entry can be changed alone."""
    return hashlib.sha256(previous + entry_json(entry).encode()).digest()


def grant_message(terms: GrantTerms, ledger_sequence: int) -> bytes:
    """Returns the canonical bytes of a grant that the coordinator signs and sites verify.

    Layout: domain tag, grant id, campaign id, candidate id, then little-endian uint32 model
    version, int64 expiry in seconds since 1970, uint32 reason, uint64 ledger position.

    >>> terms = GrantTerms(bytes(16), bytes(16), bytes(16), "s", "a", 1, 1, GrantReason.USEFUL, 9)
    >>> len(grant_message(terms, 3))
    91
    """
    numbers = struct.pack(
        "<IqIQ", terms.model_version, terms.expires_at, int(terms.reason), ledger_sequence
    )
    ids = terms.grant_id + terms.campaign_id + terms.candidate_id
    return b"perimeter-grant-v1\0" + ids + numbers
