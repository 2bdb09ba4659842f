"""Finding the best rows without sorting all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 18
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
    likely = likely_level(column, count)
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


def likely_level(column: NDArray[np.uint8], count: int, *, sure: bool = False) -> int:
    """The level that so many rows reach if a sample of them is like all.

    Args:
        column: levels.
        count: rows to find.
        sure: whether to allow for two standard deviations of the sample, towards a lower level.
    """
    sample = np.sort(column[:: max(1, len(column) // _SAMPLE)])
    expected = count * len(sample) / max(1, len(column))
    place = len(sample) - round(expected + (2.0 * expected**0.5 if sure else 0.0))
    return int(sample[min(max(place, 0), len(sample) - 1)]) if len(sample) else 0


def rows_where(
    rows: int, asked: Callable[[slice], NDArray[np.bool_]], *, most: int
) -> NDArray[np.int64] | None:
    """Rising rows of which a question about a block of them is true; None if more than ``most``.

    Blocks keep what lies between two passes in the processor's own memory.

    >>> column = np.uint8([3, 9, 9])
    >>> rows_where(3, lambda part: column[part] > 5, most=2)
    array([1, 2])
    """
    found: list[NDArray[np.int64]] = []
    count = 0
    for start in range(0, rows, _BLOCK):
        part = np.flatnonzero(asked(slice(start, start + _BLOCK)))
        count += len(part)
        if count > most:
            return None
        found.append(part + start)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
