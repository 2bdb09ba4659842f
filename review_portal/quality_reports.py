"""Quality reports that are worked out once and shown for a minute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from review_portal.core.model import Campaign
from review_portal.store import quality
from review_portal.store.database import Database

FRESH_SECONDS = 60.0


@dataclass
class QualityReports:
    """The newest report of each campaign.

    A report reads up to 200,000 annotations; it is worked out anew when something was decided
    since, at most once a minute for each campaign, and by one reader at a time.

    Attributes:
        database: Where annotations are.
        clock: Seconds since the epoch.
    """

    database: Database
    clock: Callable[[], float]
    _known: dict[bytes, tuple[float, int, quality.QualityReport]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, campaign: Campaign) -> quality.QualityReport:
        """Returns a campaign's report, not older than a minute."""
        with self._lock:
            newest = self.database.read(quality.newest_change)
            known = self._known.get(campaign.campaign_id)
            if known is not None:
                at, change, report = known
                if change == newest or 0 <= self.clock() - at < FRESH_SECONDS:
                    return report
            report = self.database.read(lambda c: quality.report(c, campaign))
            self._known[campaign.campaign_id] = (self.clock(), newest, report)
            return report
