"""Finding the best rows without sorting all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 1 << 12
"""Rows that say about where the level lies."""


def level_reaching(
    column: NDArray[np.uint8], count: int, *, without: NDArray[np.uint8] | None = None
) -> int:
    """The highest level that at least ``count`` rows reach.

    A search over byte compares: first about where a sample of the rows says, then by bisection.

    Args:
        column: levels.
        count: rows to find, at least 1.
        without: levels of rows that do not count.

    >>> level_reaching(np.uint8([5, 5, 9, 0]), 2)
    5
    >>> level_reaching(np.uint8([5, 9]), 1, without=np.uint8([9]))
    5
    """
    low, high = 0, int(column.max(initial=0))
    likely = _likely_level(column, count)
    probes = [likely + 1, likely]
    while low < high:
        middle = probes.pop() if probes else (low + high + 1) // 2
        middle = min(max(middle, low + 1), high)
        reached = np.count_nonzero(column >= middle)
        if without is not None:
            reached -= np.count_nonzero(without >= middle)
        if reached >= count:
            low = middle
        else:
            high = middle - 1
    return low


def _likely_level(column: NDArray[np.uint8], count: int) -> int:
    """The level that so many rows reach if a sample of them is like all."""
    sample = np.sort(column[:: max(1, len(column) // _SAMPLE)])
    place = len(sample) - round(count * len(sample) / max(1, len(column)))
    return int(sample[min(max(place, 0), len(sample) - 1)]) if len(sample) else 0
