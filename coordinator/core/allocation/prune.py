"""Finding the best rows without sorting all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def level_reaching(
    column: NDArray[np.uint8], count: int, *, without: NDArray[np.uint8] | None = None
) -> int:
    """The highest level that at least ``count`` rows reach, by bisection over byte compares.

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
    while low < high:
        middle = (low + high + 1) // 2
        reached = np.count_nonzero(column >= middle)
        if without is not None:
            reached -= np.count_nonzero(without >= middle)
        if reached >= count:
            low = middle
        else:
            high = middle - 1
    return low
