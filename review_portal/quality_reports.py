"""Quality reports that are always of now, from sums that grow with each decision."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from sqlalchemy import Connection

from review_portal.core.model import Campaign
from review_portal.core.schema_mapping import Mapping
from review_portal.errors import StoreError
from review_portal.store import quality, quality_tally, site_view
from review_portal.store.campaigns import list_campaigns
from review_portal.store.database import Database
from review_portal.store.quality_tally import Tally

logger = logging.getLogger(__name__)

CATCH_UP_SECONDS = 20.0
KEEP_AFTER = 5000
"""Annotations and labels after which the sums are stored again."""


@dataclass
class _Known:
    tally: Tally
    kept_at: int
    newest: tuple[dict[int, Mapping], quality.QualityReport] | None = None

    @property
    def reached(self) -> int:
        """How far the sums go."""
        return self.tally.newest_annotation + self.tally.newest_label


@dataclass
class QualityReports:
    """The report of each campaign, worked out anew when something changed.

    Attributes:
        database: Where annotations are.
    """

    database: Database
    _known: dict[bytes, _Known] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def of(self, campaign: Campaign) -> quality.QualityReport:
        """Returns a campaign's report as of now."""

        def work(connection: Connection) -> quality.QualityReport:
            known = self._caught_up(connection, campaign)
            mappings = quality.mappings_of(connection, campaign)
            if known.newest is None or known.newest[0] != mappings:
                found = quality.report(connection, campaign, known.tally)
                known.newest = (mappings, found)
            return known.newest[1]

        with self._lock:
            return self.database.read(work)

    def calibrations(self, campaign: Campaign) -> tuple[quality.Calibration, ...]:
        """Returns how the confidence of each model version stood up, newest first."""
        with self._lock:
            known = self.database.read(lambda c: self._caught_up(c, campaign))
            return quality.calibrations(known.tally)

    def work_by_day(self, campaign: Campaign, now: float) -> tuple[site_view.DayOfWork, ...]:
        """Returns the decisions of the last days, oldest first."""
        with self._lock:
            known = self.database.read(lambda c: self._caught_up(c, campaign))
            return site_view.work_by_day(known.tally, now)

    def _caught_up(self, connection: Connection, campaign: Campaign) -> _Known:
        known = self._known.pop(campaign.campaign_id, None)  # back once all is counted
        if known is None:
            tally = quality_tally.kept(connection, campaign.campaign_id)
            known = _Known(tally, 0)
            known.kept_at = known.reached
        if quality_tally.catch_up(connection, campaign.campaign_id, known.tally):
            known.newest = None
        self._known[campaign.campaign_id] = known
        return known

    def start(self) -> None:
        """Follows all campaigns on a thread of its own, so that no page has much to catch up."""
        threading.Thread(target=self._follow, name="quality", daemon=True).start()

    def stop(self) -> None:
        """Ends that thread."""
        self._stop.set()

    def _follow(self) -> None:
        while True:
            try:
                self.keep_up()
            except StoreError as error:
                logger.warning("quality is not followed: %s", error)
            if self._stop.wait(CATCH_UP_SECONDS):
                return

    def keep_up(self) -> None:
        """Counts what is new of every campaign, and stores sums that have grown much."""
        for campaign in self.database.read(list_campaigns):
            self._keep_up(campaign)

    def _keep_up(self, campaign: Campaign) -> None:
        with self._lock:
            known = self.database.read(lambda c: self._caught_up(c, campaign))
            if known.reached - known.kept_at >= KEEP_AFTER:
                self.database.write(
                    lambda c: quality_tally.keep(c, campaign.campaign_id, known.tally)
                )
                known.kept_at = known.reached
