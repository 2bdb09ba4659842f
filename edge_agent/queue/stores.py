"""Everything that a device keeps, opened together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.config import AgentConfig
from edge_agent.errors import SealBroken, StorageError
from edge_agent.privacy import PrivacyBook
from edge_agent.queue.bindings import Bindings
from edge_agent.queue.database import Database
from edge_agent.queue.grant_book import GrantBook
from edge_agent.queue.journal import CampaignBook, Conditions, Journal
from edge_agent.queue.keys import DEVICE, FileKeys, KeyringKeys, KeyStore
from edge_agent.queue.migration import migrate
from edge_agent.queue.outbox import Outbox
from edge_agent.queue.samples import SampleStore
from edge_agent.queue.sealing import Sealer
from edge_agent.queue.seals import Seals
from edge_agent.queue.shredding import finish

FILE_NAME = "queue.db"


@dataclass(frozen=True)
class Stores:
    """The parts of one queue file.

    Attributes:
        database: The file itself.
        sealer: The device's own; names candidates and requests.
        seals: The device's and each campaign's.
        samples: Samples.
        outbox: Candidate batches and pool totals.
        grants: Grants.
        journal: Positions of sources and refusals.
        campaigns: Known campaigns.
        conditions: What is wrong right now.
        privacy: Noised releases and what they cost.
        bindings: Which sample a grant without one is for.
    """

    database: Database
    sealer: Sealer
    seals: Seals
    samples: SampleStore
    outbox: Outbox
    grants: GrantBook
    journal: Journal
    campaigns: CampaignBook
    conditions: Conditions
    privacy: PrivacyBook
    bindings: Bindings

    def offer_all_again(self) -> None:
        """Forgets what was offered, so that the whole pool is scored and sent once more.

        A new enrolment is a new machine to the coordinator, which then knows none of its
        candidates.
        """
        with self.database.transaction():
            self.database.write("UPDATE sample SET scored_version = 0")
            self.database.write("DELETE FROM outbox")
            self.database.write("UPDATE pool SET model_version = 0, reported = ''")


def key_store(config: AgentConfig) -> KeyStore:
    """Returns where the keys of this device lie.

    Raises:
        StorageError: There is no keyring that keeps anything.
    """
    if config.key_store == "keyring":
        return KeyringKeys(f"perimeter-agent {config.state_folder.resolve()}")
    return FileKeys(config.key_path)


def _check_key(database: Database, sealer: Sealer, place: str, *, may_write: bool) -> None:
    """Refuses a key that did not seal this queue, before every sample looks damaged."""
    rows = database.read("SELECT sealed FROM key_check")
    try:
        if rows:
            sealer.open(rows[0][0], b"key-check")
        elif may_write:
            sealed = sealer.seal(b"perimeter", b"key-check")
            database.write("INSERT INTO key_check VALUES (1, ?)", (sealed,))
    except SealBroken:
        database.close()
        raise StorageError(
            f"{place} does not belong to the queue {database.path}; restore the key from its backup"
        ) from None


def open_stores(
    config: AgentConfig, *, read_only: bool = False, clock: Callable[[], float] = time.time
) -> Stores:
    """Opens the queue of a state folder; brings an older layout up to date unless read-only.

    Raises:
        StorageError: The file or its key cannot be used.
    """
    config.state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = key_store(config)
    sealer = Sealer(keys.make(DEVICE))
    database = Database(
        config.state_folder / FILE_NAME,
        bytes_max=config.limits.queue_bytes_max,
        read_only=read_only,
    )
    _check_key(database, sealer, keys.place(DEVICE), may_write=not read_only)
    seals = Seals(database, keys, sealer)
    outbox = Outbox(database, seals)
    if not read_only:
        migrate(database, seals, clock())
        finish(database, seals, outbox)
    samples = SampleStore(database, seals)
    return Stores(
        database=database,
        sealer=sealer,
        seals=seals,
        samples=samples,
        outbox=outbox,
        grants=GrantBook(database),
        journal=Journal(database, sealer, refusal_rows_max=config.limits.refusal_rows_max),
        campaigns=CampaignBook(database),
        conditions=Conditions(database),
        privacy=PrivacyBook(config.state_folder),
        bindings=Bindings(database, samples),
    )
