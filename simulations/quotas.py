"""Budget rules by site, for rivals that choose inside each site: how many labels go where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


def share_out(weights: Reals, total: int, limits: Integers) -> Integers:
    """Whole numbers in proportion to the weights, within limits, with the given sum if possible.

    Largest remainders get the odd labels (Hamilton's method); what a full site cannot take is
    shared among the others again.

    >>> share_out(np.array([1.0, 1.0, 2.0]), 8, np.array([9, 1, 9])).tolist()
    [2, 1, 5]
    """
    result = np.zeros(len(weights), dtype=np.int64)
    left = min(total, int(limits.sum()))
    while left > 0:
        room = limits - result
        active = np.where(room > 0, np.maximum(weights, 1e-12), 0.0)
        ideal = active / active.sum() * left
        step = np.minimum(np.floor(ideal).astype(np.int64), room)
        if not step.any():
            order = np.lexsort((np.arange(len(ideal)), -ideal))
            order = order[room[order] > 0][:left]
            step[order] = 1
        result += step
        left -= int(step.sum())
    return result


def equal(pool_sizes: Integers, total: int, limits: Integers) -> Integers:
    """The same number for every site.

    >>> equal(np.array([5, 50]), 4, np.array([5, 50])).tolist()
    [2, 2]
    """
    return share_out(np.ones(len(pool_sizes)), total, limits)


def proportional(pool_sizes: Integers, total: int, limits: Integers) -> Integers:
    """In proportion to pool size (Bowley, 1926).

    >>> proportional(np.array([10, 30]), 4, np.array([10, 30])).tolist()
    [1, 3]
    """
    return share_out(pool_sizes.astype(np.float64), total, limits)


def square_root(pool_sizes: Integers, total: int, limits: Integers) -> Integers:
    """In proportion to the root of pool size (power allocation, Bankier, 1988).

    >>> square_root(np.array([1, 9]), 4, np.array([9, 9])).tolist()
    [1, 3]
    """
    return share_out(np.sqrt(pool_sizes), total, limits)


def neyman(pool_sizes: Integers, deviations: Reals, total: int, limits: Integers) -> Integers:
    """In proportion to size times the spread of the scores (Neyman, 1934).

    >>> neyman(np.array([10, 10]), np.array([0.1, 0.3]), 4, np.array([9, 9])).tolist()
    [1, 3]
    """
    return share_out(pool_sizes * deviations, total, limits)


def water_filling(labelled: Integers, total: int, limits: Integers) -> Integers:
    """Raises the sites with the fewest labels to a common level.

    >>> water_filling(np.array([0, 3]), 5, np.array([9, 9])).tolist()
    [4, 1]
    """
    result = np.zeros(len(labelled), dtype=np.int64)
    for _ in range(min(total, int(limits.sum()))):
        level = np.where(result < limits, labelled + result, np.iinfo(np.int64).max)
        result[int(level.argmin())] += 1
    return result


def thompson(
    wins: Reals, losses: Reals, total: int, limits: Integers, rng: np.random.Generator
) -> Integers:
    """Each label goes to the site whose draw from its Beta posterior is largest.

    A win is a label that the model had got wrong. Source: Thompson, "On the likelihood that one
    unknown probability exceeds another", 1933.
    """
    result = np.zeros(len(wins), dtype=np.int64)
    for _ in range(min(total, int(limits.sum()))):
        draws = np.where(result < limits, rng.beta(1 + wins, 1 + losses), -1.0)
        result[int(draws.argmax())] += 1
    return result
