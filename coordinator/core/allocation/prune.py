"""Leaving out rows that cannot be bought, before anything is sorted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers
from coordinator.core.allocation.offer import Offer

SMALLEST_SHORTLIST = 20_000
PICKS_MULTIPLE = 6


def shortlist_size(offer: Offer) -> int:
    """Rows that an engine looks at first."""
    return max(SMALLEST_SHORTLIST, PICKS_MULTIPLE * offer.most_picks)


def best_rows(utilities: NDArray[np.float32], ties: NDArray[np.uint64], count: int) -> Integers:
    """Places of the ``count`` best rows by utility, then chance; in rising order of place.

    >>> best_rows(np.float32([1, 2, 2, 0]), np.uint64([0, 9, 5, 0]), 1).tolist()
    [2]
    """
    if count >= len(utilities):
        return np.arange(len(utilities))
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    bar = np.partition(utilities, len(utilities) - count)[len(utilities) - count]
    above = np.flatnonzero(utilities > bar)
    level = np.flatnonzero(utilities == bar)
    short = count - len(above)
    if short < len(level):
        level = level[np.argpartition(ties[level], short)[:short]]
    return np.sort(np.concatenate([above, level]))


def shortlist(offer: Offer) -> Integers:
    """Places worth a first look: the best of all, and the best of each class with a floor."""
    size = shortlist_size(offer)
    if size * 3 // 2 >= len(offer.rows):
        return np.arange(len(offer.rows))
    parts = [best_rows(offer.utilities, offer.ties, size)]
    for group in np.flatnonzero(offer.floors).tolist():
        members = np.flatnonzero(offer.classes == group)
        best = best_rows(
            offer.utilities[members], offer.ties[members], 8 * int(offer.floors[group]) + 64
        )
        parts.append(members[best])
    return np.unique(np.concatenate(parts))
