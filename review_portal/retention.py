"""The age limit of content at a site, as the portal keeps to it by itself and on command."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from review_portal.label_store import LabelStore
from review_portal.store import retention

SECONDS_PER_DAY = 86400.0
PAUSE_SECONDS = 3600.0


@dataclass
class Keeper:
    """Removes what is too old, an hour after it last found nothing more.

    Attributes:
        store: The label store.
        days: Age limit in days; 0 keeps everything.
    """

    store: LabelStore
    days: int
    _next_at: float = 0.0

    def turn(self, now: float) -> int:
        """Removes one batch when it is time to. Returns how many items lost their content."""
        if not self.days or now < self._next_at:
            return 0
        removed = self.remove(now, actor="clock")
        if removed < retention.BATCH_ROWS:
            self._next_at = now + PAUSE_SECONDS
        return removed

    def remove(self, now: float, *, actor: str) -> int:
        """Removes one batch; with the last one keys of campaigns that ended go, too."""
        before = now - self.days * SECONDS_PER_DAY
        write, keys = self.store.database.write, self.store.keys
        removed = write(
            lambda c: retention.remove_old(c, keys, before=before, actor=actor, now=now)
        )
        if removed < retention.BATCH_ROWS:
            over = self.store.database.read(lambda c: retention.ended(c, keys, before=before))
            for campaign_id in over:
                note = partial(retention.note_shredded, campaign_id=campaign_id)
                write(partial(note, actor=actor, now=now))
                keys.shred(campaign_id)
        if removed:
            self.store.database.truncate_log()
        return removed
