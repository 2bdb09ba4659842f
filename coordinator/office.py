"""What every handler works with: the store, the ledger, the clock and the keys, in one place.

One thread runs all handlers (see `service.Desk`), so that the ledger in memory and the store never
drift apart and no lock is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.config import CoordinatorConfig
from coordinator.core.campaign import Campaign
from coordinator.core.entries import Entry, chain_digest
from coordinator.core.ledger import Ledger
from coordinator.core.records import CampaignRecord, CounterRecord
from coordinator.core.stability import Change
from coordinator.errors import LedgerCorrupt
from coordinator.high_water import measure, write_high_water
from coordinator.identity import Authority
from coordinator.known_ids import KnownIds
from coordinator.store import Store, Writer

Clock = Callable[[], int]
"""Seconds since 1970-01-01 UTC."""
Entropy = Callable[[int], bytes]
"""Random bytes of the wanted count, from the operating system outside tests."""


@dataclass
class AgentStream:
    """The batches of one agent in one campaign: the last sequence and the ids seen so far."""

    last_sequence: int = 0
    ids: KnownIds = field(default_factory=KnownIds)


@dataclass
class Office:
    """The coordinator's desk.

    Attributes:
        config: Settings.
        store: What is durable.
        ledger: What `store.entries()` says, kept in memory.
        clock: The one clock.
        entropy: The one source of chance.
        authority: Issues certificates.
        grant_key: Signs grants.
        release_public_key: Ed25519 public key of bundles, 32 bytes.
        streams: What is known of each agent's stream of batches; a cache.
        counted: Messages and bytes received since the last flush, by counter name.
        maintained_at: When maintenance last ran.
        told: When an agent (campaign id, site, name) first heard of a campaign since the start.
        reasons: Campaign id to the sentence of its latest step, for the operator.
        changes: What changed between two versions, by campaign id and cycle; a cache.
    """

    config: CoordinatorConfig
    store: Store
    ledger: Ledger
    clock: Clock
    entropy: Entropy
    authority: Authority
    grant_key: Ed25519PrivateKey
    release_public_key: bytes
    streams: dict[tuple[bytes, str, int], AgentStream] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    maintained_at: int = 0
    told: dict[tuple[bytes, str, str], int] = field(default_factory=dict)
    reasons: dict[bytes, str] = field(default_factory=dict)
    changes: dict[tuple[bytes, int], Change] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The central folder."""
        return self.config.folder

    def campaign(self, record: CampaignRecord) -> Campaign:
        """Returns the settings of a stored campaign."""
        return read_campaign(record)

    def commit(
        self, entries: Sequence[Entry], write: Callable[[Writer], None] | None = None
    ) -> None:
        """Stores ledger entries and other records in one transaction, then updates the ledger.

        Args:
            entries: From a decision of `self.ledger`, or none.
            write: Further writes of the same transaction.

        Raises:
            StoreConflict: Another process wrote to the ledger; nothing was stored.
            StoreUnavailable: Nothing was stored.
        """
        digests: list[bytes] = []
        digest = self.ledger.digest
        for entry in entries:
            digest = chain_digest(digest, entry)
            digests.append(digest)
        with self.store.transaction() as writer:
            writer.append(entries, digests)
            if write is not None:
                write(writer)
        for entry in entries:
            self.ledger.apply(entry)
        if entries:
            # Before this call ends nobody can see the grants or the answer.
            write_high_water(self.config.high_water_path, measure(self.ledger))

    def count(self, name: str, amount: int) -> None:
        """Adds to a counter; `flush_counters` makes it durable."""
        self.counted[name] = self.counted.get(name, 0) + amount

    def flush_counters(self) -> None:
        """Stores what was counted since the last call."""
        if not self.counted:
            return
        counted, self.counted = self.counted, {}
        with self.store.transaction() as writer:
            for name, amount in counted.items():
                before = self.store.get(CounterRecord, name)
                writer.put(CounterRecord(name, amount + (before.total if before else 0)))


def read_campaign(record: CampaignRecord) -> Campaign:
    """Returns the settings inside a campaign record."""
    import json

    return Campaign.from_mapping(json.loads(record.settings_json))


def load_ledger(store: Store) -> Ledger:
    """Replays the stored entries and compares the digest chain.

    Raises:
        LedgerCorrupt: An entry was changed, is missing, or breaks a rule.
    """
    ledger = Ledger()
    for entry, digest in store.entries():
        ledger.apply(entry)
        if ledger.digest != digest:
            raise LedgerCorrupt(entry.sequence, "its digest does not fit; it was changed")
    return ledger
