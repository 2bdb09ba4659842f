"""Everything that a device keeps, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.errors import SealBroken, StorageError
from edge_agent.privacy import PrivacyBook
from edge_agent.queue.bindings import Bindings
from edge_agent.queue.database import Database
from edge_agent.queue.grant_book import GrantBook
from edge_agent.queue.journal import CampaignBook, Conditions, Journal
from edge_agent.queue.outbox import Outbox
from edge_agent.queue.samples import SampleStore
from edge_agent.queue.sealing import Sealer, load_or_make_key

FILE_NAME = "queue.db"


@dataclass(frozen=True)
class Stores:
    """The parts of one queue file.

    Attributes:
        database: The file itself.
        sealer: Seals what lies in it.
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


def _check_key(database: Database, sealer: Sealer, path: Path, *, may_write: bool) -> None:
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
            f"the key file {path} does not belong to the queue {database.path}; "
            "restore the key from its backup"
        ) from None


def open_stores(config: AgentConfig, *, read_only: bool = False) -> Stores:
    """Opens the queue of a state folder.

    Raises:
        StorageError: The file or its key cannot be used.
    """
    config.state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sealer = Sealer(load_or_make_key(config.key_path))
    database = Database(
        config.state_folder / FILE_NAME,
        bytes_max=config.limits.queue_bytes_max,
        read_only=read_only,
    )
    _check_key(database, sealer, config.key_path, may_write=not read_only)
    samples = SampleStore(database, sealer)
    return Stores(
        database=database,
        sealer=sealer,
        samples=samples,
        outbox=Outbox(database, sealer),
        grants=GrantBook(database),
        journal=Journal(database, sealer, refusal_rows_max=config.limits.refusal_rows_max),
        campaigns=CampaignBook(database),
        conditions=Conditions(database),
        privacy=PrivacyBook(config.state_folder),
        bindings=Bindings(database, samples),
    )
