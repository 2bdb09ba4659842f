"""What the portal adds to an item from the site's own labels: calibrated confidence, typical words.

Both are recomputed at most once a minute and never hold up a request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from review_portal.core.calibration import CalibrationBin
from review_portal.core.confidence import calibrated
from review_portal.core.highlights import WordEvidence, count_words, highlights
from review_portal.core.model import Campaign, Kind
from review_portal.errors import StoreError
from review_portal.label_store import LabelStore
from review_portal.quality_reports import QualityReports

logger = logging.getLogger(__name__)

FRESH_SECONDS = 60.0
EXAMPLES_MAX = 5000


@dataclass(frozen=True)
class _Learned:
    at: float
    bins: dict[int, tuple[CalibrationBin, ...]]
    words: WordEvidence | None


class Hints:
    """Hints for one portal.

    Args:
        store: Where labels are.
        clock: Seconds since the epoch.
        quality: Knows how each model version stood up to experts.
    """

    def __init__(
        self, store: LabelStore, clock: Callable[[], float], quality: QualityReports
    ) -> None:
        self._store = store
        self._quality = quality
        self._clock = clock
        self._learned: dict[bytes, _Learned] = {}
        self._busy = threading.Lock()

    def confidence(self, campaign: Campaign, model_version: int, raw: float) -> float:
        """Returns the confidence to show."""
        learned = self._look(campaign)
        bins = learned.bins.get(model_version, ()) if learned else ()
        return calibrated(raw, bins)

    def evidence(self, campaign: Campaign, text: str, class_index: int) -> list[tuple[int, int]]:
        """Returns the words of a text that are typical of a class at this site."""
        learned = self._look(campaign)
        if learned is None or learned.words is None or len(learned.words.by_class) <= class_index:
            return []
        found = highlights(text, class_index, learned.words)
        return [(part.start, part.end) for part in found]

    def _look(self, campaign: Campaign) -> _Learned | None:
        known = self._learned.get(campaign.campaign_id)
        stale = known is None or self._clock() - known.at > FRESH_SECONDS
        if stale and self._busy.acquire(blocking=False):
            threading.Thread(target=self._learn, args=(campaign,), daemon=True).start()
        return known

    def _learn(self, campaign: Campaign) -> None:
        try:
            self._learned[campaign.campaign_id] = self.learn(campaign)
        except StoreError as error:
            logger.warning("no hints for campaign %s: %s", campaign.name, error)
        finally:
            self._busy.release()

    def learn(self, campaign: Campaign) -> _Learned:
        """Reads the newest labels of a campaign."""
        found = self._quality.calibrations(campaign)
        words = None
        if campaign.kind is Kind.TEXT:
            examples = islice(self._store.examples(campaign.campaign_id, "train"), EXAMPLES_MAX)
            texts = ((e.content.decode("utf-8", "replace"), e.class_index) for e in examples)
            words = count_words(texts, len(campaign.classes))
        return _Learned(self._clock(), {c.model_version: c.bins for c in found}, words)
