"""Finding the best rows without sorting all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers


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


def level_reaching(column: NDArray[np.uint8], count: int) -> int:
    """The highest level that at least ``count`` rows reach, by bisection over byte compares.

    >>> level_reaching(np.uint8([5, 5, 9, 0]), 2)
    5
    """
    low, high = 0, int(column.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        if np.count_nonzero(column >= middle) >= count:
            low = middle
        else:
            high = middle - 1
    return low
