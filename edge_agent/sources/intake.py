"""The one way from a source into the queue: samples, position and refusals in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent.config import SourceConfig
from edge_agent.errors import ConfigError, StorageFull
from edge_agent.queue.database import Database
from edge_agent.queue.journal import CampaignBook, Journal, Refusal
from edge_agent.queue.samples import SampleStore

ROOM_RATIO = 0.9
"""Share of the queue that samples may fill; the rest is for grants and batches on their way."""


@dataclass(frozen=True)
class Delivery:
    """What a source read in one turn.

    Attributes:
        contents: Canonical content of each sample.
        refusals: What could not be used.
        position: Where the source goes on, or None when unchanged.
        files: Keyed id and stamp of files that are done.
        more: True when the source has more to read right now.
    """

    contents: Sequence[bytes] = ()
    refusals: Sequence[Refusal] = ()
    position: bytes | None = None
    files: Sequence[tuple[bytes, bytes]] = field(default=())
    more: bool = False


class Intake:
    """Takes deliveries into the queue.

    Args:
        database: The queue's file.
        samples: The sample store in it.
        journal: Positions and refusals in it.
        queue_bytes_max: Size of the queue.
        drop_oldest: True to make room by dropping the oldest samples.
    """

    def __init__(
        self,
        database: Database,
        samples: SampleStore,
        journal: Journal,
        *,
        queue_bytes_max: int,
        drop_oldest: bool,
    ) -> None:
        self._database = database
        self._samples = samples
        self._journal = journal
        self._campaigns = CampaignBook(database)
        self._room_bytes = int(queue_bytes_max * ROOM_RATIO)
        self._drop_oldest = drop_oldest

    def campaign_id(self, source: SourceConfig) -> bytes | None:
        """Returns the id of the source's campaign, or None before the coordinator named it.

        Raises:
            ConfigError: The campaign is about another kind of sample.
        """
        campaign = self._campaigns.all().get(source.campaign)
        if campaign is None:
            return None
        if campaign.kind != source.kind:
            raise ConfigError(
                f"source {source.name!r} brings {source.kind}, but campaign "
                f"{source.campaign!r} is about {campaign.kind}; nothing is read from it"
            )
        return campaign.campaign_id

    def make_room(self) -> None:
        """Makes sure that samples may be added.

        Raises:
            StorageFull: The queue is full and its policy is to wait.
        """
        while self._database.size_bytes() > self._room_bytes:
            if not self._drop_oldest or not self._samples.drop_oldest(32):
                raise StorageFull(
                    "the queue is full, so sources wait; raise limits.queue_bytes_max "
                    'or set limits.when_full = "drop-oldest"'
                )

    def take(self, source: SourceConfig, delivery: Delivery, now: float) -> int:
        """Stores a delivery whole; returns how many samples were new.

        Raises:
            StorageFull: There is no space; nothing of the delivery was stored.
        """
        campaign_id = self.campaign_id(source)
        if campaign_id is None:
            return 0
        with self._database.transaction():
            added = self._samples.add(campaign_id, source.name, delivery.contents, now=now)
            if delivery.refusals:
                self._journal.record_refusals(delivery.refusals, now)
            if delivery.files:
                self._journal.record_files(source.name, delivery.files)
            if delivery.position is not None:
                self._journal.record_position(source.name, delivery.position)
        return added
