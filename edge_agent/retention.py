"""The age limit of samples on a device: they go when they are old and no open grant names them.

Positions of sources stay, so that what was removed is not read again. A candidate of a sample that
is gone stays with the coordinator; a grant for it is answered REFUSED, and its label comes back.
"""

from __future__ import annotations

from edge_agent.audit import AuditLog
from edge_agent.queue.stores import Stores

SECONDS_PER_DAY = 86400.0
PAUSE_SECONDS = 3600.0
BATCH_ROWS = 500


class Retention:
    """Removes samples that are too old.

    Args:
        stores: The queue.
        audit: The device's log.
        days: Age limit: since settlement where a grant named a sample, else since arrival; 0 keeps
            everything.
    """

    def __init__(self, stores: Stores, audit: AuditLog, days: int) -> None:
        self._stores = stores
        self._audit = audit
        self._days = days
        self._next_at = 0.0

    def turn(self, now: float) -> bool:
        """Removes one batch when it is time to; True when there is more.

        Raises:
            StorageError: The queue or the log cannot be used; what was not logged was not removed.
        """
        if not self._days or now < self._next_at:
            return False
        if self.remove(now):
            return True
        self._next_at = now + PAUSE_SECONDS
        return False

    def remove(self, now: float) -> int:
        """Removes one batch; returns how many samples went."""
        before = now - self._days * SECONDS_PER_DAY
        live = self._stores.grants.live_since(before)
        kept = {self._stores.bindings.bound(g.grant_id) or g.candidate_id for g in live}
        old = self._stores.samples.older_than(before, kept=kept, count_max=BATCH_ROWS)
        for campaign_id in {campaign_id for _, campaign_id in old}:
            count = sum(campaign == campaign_id for _, campaign in old)
            detail: dict[str, int | str] = {"samples": count, "before": int(before)}
            self._audit.append("retention.removed", campaign_id.hex(), detail, at=now)
        self._stores.samples.remove([row_id for row_id, _ in old])
        if old:
            self._stores.database.truncate_log()
        return len(old)
