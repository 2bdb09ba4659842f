"""How far to believe a site's scores, judged by what its explore labels showed.

A site that claims to be unsure everywhere would draw the budget to itself. But a claimed
confidence f predicts how often its explored labels will be right. A site whose labels are right
much more often than it claims asks for more than its due, and its weight shrinks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.estimation import ExploreLabels

SMALLEST_TRUST = 0.02
"""A site keeps this much weight, so that it can recover."""
PRIOR_LABELS = 4.0
"""Imagined labels that agree with the claim; they keep a few lucky ones from costing trust."""


def site_trust(labels: ExploreLabels, *, sites: int) -> NDArray[np.float64]:
    """float64[sites] in [0, 1]: realised over claimed error rate, squared, where it is below 1.

    Args:
        labels: labels of one or more cycles with what was claimed of them: explore labels, or all
            labels. Useful picks were picked for their claims, but so were those of the other
            sites, which set the yardstick.
        sites: how many sites there are; those without labels keep full trust.

    >>> sites = np.repeat([0, 1], 40)
    >>> labels = ExploreLabels(
    ...     site_index=sites, predicted_classes=0 * sites, confidences=np.full(80, 0.5),
    ...     inclusion_probabilities=np.ones(80), correct=np.where(np.arange(80) < 60, 1, 0),
    ... )
    >>> bool(site_trust(labels, sites=3)[0] < 0.2), site_trust(labels, sites=3)[1:].tolist()
    (True, [1.0, 1.0])
    """
    known = labels.part(labels.correct >= 0)
    claimed = _sums(known.site_index, 1.0 - known.confidences, sites)
    realised = _sums(known.site_index, 1.0 - known.correct, sites)
    counts = np.bincount(known.site_index, minlength=sites)
    # A claim is judged against how claims come true elsewhere: a shared model that is unsure of
    # itself everywhere costs no site its trust, and a liar does not move its own yardstick.
    others = realised.sum() - realised
    scale = np.clip(others / np.maximum(claimed.sum() - claimed, 1e-9), 0.0, 1.0)
    expected = claimed * scale
    prior = PRIOR_LABELS * expected.sum() / max(1, int(counts.sum()))
    # Chance alone moves a count by about its root; only what lies beyond counts.
    reached = (realised + prior + np.sqrt(expected)) / np.maximum(expected + prior, 1e-9)
    trust = np.clip(reached, 0.0, 1.0) ** 2
    # Where nobody else was ever wrong there is no yardstick, and no one is judged.
    judged = (counts > 0) & (expected > 0.0)
    return np.where(judged, np.maximum(trust, SMALLEST_TRUST), 1.0)


def _sums(
    sites: NDArray[np.int64], amounts: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    return np.bincount(sites, weights=amounts, minlength=count).astype(np.float64)
