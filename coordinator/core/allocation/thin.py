"""A few rows of each key stand for all of them: rows of one key and one utility are alike.

No choice takes many rows of one key while others are as good, so where millions of rows share one
utility the few that chance puts first in each key are all that an engine has to see.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.keys import dense_codes, ranked
from coordinator.core.allocation.objective import Integers

_SLACK = 8.0


def lowest_per_key(keys: Integers, ties: NDArray[np.uint64], most: int) -> Integers:
    """Rising places of the ``most`` rows of each key with the lowest tie numbers.

    Args:
        keys: int64[n], at least 0.
        ties: uint64[n], uniform.
        most: at least 1.

    >>> lowest_per_key(np.array([7, 7, 2, 7]), np.uint64([5, 1, 9, 3]), 2).tolist()
    [1, 2, 3]
    """
    keys = dense_codes(keys)
    near = near_lowest(keys, ties, np.full(int(keys.max(initial=-1)) + 1, most))
    order = near[ranked(keys[near], np.zeros(len(near), dtype=np.float32), ties[near])]
    found = np.bincount(keys[near])
    starts = np.cumsum(found) - found
    rank = np.arange(len(order)) - starts[keys[order]]
    return np.sort(order[rank < most])


def near_lowest(keys: Integers, ties: NDArray[np.uint64], most: Integers) -> Integers:
    """Rising places of the lowest tie numbers of each key, as many as asked or some more.

    These are rows below a number that about so many rows of their key are expected to stay below.
    Where chance left fewer, that number is raised. Nothing is sorted.

    Args:
        keys: int64[n], all of 0 to k - 1.
        ties: uint64[n], uniform.
        most: int64[k], at least 0; no place of a key of which none is asked.

    >>> near_lowest(np.array([0, 1, 0]), np.uint64([5, 1, 9]), np.array([2, 0])).tolist()
    [0, 2]
    """
    counts = np.bincount(keys, minlength=len(most))
    wanted = np.minimum(counts, most)
    share = (most + 4.0 * np.sqrt(most) + _SLACK) / np.maximum(counts, 1)
    while True:
        ceiling = (np.minimum(share, 1.0) * (2.0**64 - 2048)).astype(np.uint64)
        ceiling[share >= 1.0] = np.uint64(2**64 - 1)
        near = ties <= np.take(ceiling, keys)
        if not most.all():
            near &= np.take(most > 0, keys)
        places = np.flatnonzero(near)
        short = np.bincount(keys[places], minlength=len(most)) < wanted
        if not short.any():
            return places
        share[short] *= 4.0


def best_first(scores: NDArray[np.float64], ties: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64[n]: tie numbers that rise as scores fall, and among equal scores as the ties rise.

    Args:
        scores: float64[n] in [-0.5, 0.5], told apart from 1e-12 on.
        ties: uint64[n], uniform.

    >>> order = best_first(np.array([0.1, 0.3, 0.1]), np.uint64([2**63, 2**40, 2**50]))
    >>> np.argsort(order).tolist()
    [1, 2, 0]
    """
    place = np.rint((0.5 - scores) * (2.0**40 - 1.0)).astype(np.uint64)
    return np.asarray((place << np.uint64(24)) | (ties >> np.uint64(40)), dtype=np.uint64)


def spread_over_keys(keys: Integers, ties: NDArray[np.uint64], size: int) -> Integers:
    """Rising places of about ``size`` rows, equally many of each key as far as it has them.

    At least one row of each key stays, and all keys get the same number.
    """
    keys = dense_codes(keys)
    many = int(keys.max(initial=0)) + 1
    return lowest_per_key(keys, ties, max(1, -(-size // many)))
