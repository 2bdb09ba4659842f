"""A seal for the device and one for each campaign, so that one campaign's content can be shredded.

The device's key stays what it was: it names candidates, and seals positions and file names of
sources. A campaign's key seals its samples, masked views, scores and waiting batches.
"""

from __future__ import annotations

import threading

from edge_agent.errors import SealBroken, StorageError
from edge_agent.queue.database import Database
from edge_agent.queue.keys import KeyStore
from edge_agent.queue.sealing import Sealer

_CHECK = b"perimeter-campaign"


class Seals:
    """Sealers by campaign. Safe to share between threads.

    Args:
        database: Knows which campaigns have a key, so that a lost one is not made anew in silence.
        keys: Where the keys lie.
        device: Sealer of the device's own key.
    """

    def __init__(self, database: Database, keys: KeyStore, device: Sealer) -> None:
        self.device = device
        self._database = database
        self._keys = keys
        self._known: dict[bytes, Sealer] = {}
        self._lock = threading.Lock()

    def of(self, campaign_id: bytes) -> Sealer:
        """Returns the sealer of a campaign; its key is made on first use.

        Raises:
            StorageError: The key is lost, or is another one than before.
        """
        known = self._known.get(campaign_id)
        if known is not None:
            return known
        # The database's lock comes first everywhere, so that two threads never wait crosswise.
        with self._database.transaction(), self._lock:
            if campaign_id not in self._known:
                self._known[campaign_id] = self._opened(campaign_id)
            return self._known[campaign_id]

    def _opened(self, campaign_id: bytes) -> Sealer:
        name = campaign_id.hex()
        rows = self._database.read(
            "SELECT sealed FROM campaign_key WHERE campaign_id = ?", (campaign_id,)
        )
        key = self._keys.get(name)
        if key is None and rows:
            raise StorageError(
                f"{self._keys.place(name)} is gone, so samples of this campaign cannot be read; "
                "restore it from its backup, or give the campaign up with `perimeter-agent shred`"
            )
        sealer = Sealer(key or self._keys.make(name))
        if not rows:
            self._database.write(
                "INSERT INTO campaign_key VALUES (?, ?)",
                (campaign_id, sealer.seal(_CHECK, campaign_id)),
            )
            return sealer
        try:
            sealer.open(rows[0][0], campaign_id)
        except SealBroken:
            raise StorageError(
                f"{self._keys.place(name)} did not seal this campaign; restore it from its backup"
            ) from None
        return sealer

    def forget(self, campaign_id: bytes) -> bool:
        """Destroys a campaign's key. Returns whether there was one."""
        with self._lock:
            self._known.pop(campaign_id, None)
            return self._keys.delete(campaign_id.hex())
