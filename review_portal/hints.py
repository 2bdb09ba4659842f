"""What the portal adds to an item from the site's own labels: calibrated confidence, typical words.

Neither holds up a request: both are worked out on a thread that pauses, confidence at most once a
minute, words when there is a tenth more to learn from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
MORE_RATIO = 1.1
PAUSE_AFTER, PAUSE_SECONDS = 10, 0.005


@dataclass(frozen=True)
class _Learned:
    at: float
    bins: dict[int, tuple[CalibrationBin, ...]]
    words: WordEvidence | None
    classes: tuple[str, ...] = ()
    label_count: int = 0


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
        """Reads the first labels of a campaign, and how its model versions stood up."""
        bins = {c.model_version: c.bins for c in self._quality.calibrations(campaign)}
        known = self._learned.get(campaign.campaign_id)
        count = min(self._store.expert_label_count(campaign.campaign_id), EXAMPLES_MAX)
        if (
            known
            and known.classes == campaign.classes
            and count < max(1, MORE_RATIO * known.label_count)
        ):
            return replace(known, at=self._clock(), bins=bins)
        words = None
        if campaign.kind is Kind.TEXT:
            words = count_words(self._texts(campaign), len(campaign.classes))
        return _Learned(self._clock(), bins, words, campaign.classes, count)

    def _texts(self, campaign: Campaign) -> Iterator[tuple[str, int]]:
        examples = self._store.examples(campaign.campaign_id, "train")
        for place, example in enumerate(islice(examples, EXAMPLES_MAX)):
            if place % PAUSE_AFTER == 0:
                time.sleep(PAUSE_SECONDS)  # Answers wait for the interpreter meanwhile.
            yield example.content.decode("utf-8", "replace"), example.class_index
