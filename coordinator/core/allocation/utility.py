"""One number a candidate: how much its label may teach, apart from all other picks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.policy import Phase, Policy
from coordinator.core.allocation.pool import DENSITY_LEVELS, SCORE_LEVELS, Pool


def single_score(
    pool: Pool, policy: Policy, phase: Phase
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """The only score column that counts and its table of utilities, or None if there are more.

    Then utility rises with one byte, and rows can be compared without computing it.
    """
    trust = pool.progress.site_trust
    if policy.switches.trust and trust is not None and (trust < 1).any():
        return None
    weights = policy.weights[phase].normalised()
    if np.count_nonzero(weights) != 1:
        return None
    place = int(np.flatnonzero(weights)[0])
    columns = (pool.margins, pool.entropies, pool.divergences, pool.density_bands)
    largest = DENSITY_LEVELS if place == 3 else SCORE_LEVELS
    return columns[place], (np.arange(256) / largest).astype(np.float32)


def utilities(
    pool: Pool, policy: Policy, phase: Phase, rows: NDArray[np.int64] | slice = slice(None)
) -> NDArray[np.float32]:
    """float32 in [0, 1]: the weighted scores of the phase, times the trust in the site.

    Scores are compared as they are, not as ranks inside a site: ranks would give each site the
    same share of the top, whatever it still has to teach.
    """
    weights = policy.weights[phase].normalised()
    columns = (pool.margins, pool.entropies, pool.divergences, pool.density_bands)
    levels = (SCORE_LEVELS, SCORE_LEVELS, SCORE_LEVELS, DENSITY_LEVELS)
    result = np.zeros(len(pool.margins[rows]), dtype=np.float32)
    for weight, column, largest in zip(weights.tolist(), columns, levels, strict=True):
        if weight:
            # One table look-up per row instead of a conversion and a product.
            table = (np.arange(256) * (weight / largest)).astype(np.float32)
            result += table[column[rows]]
    trust = pool.progress.site_trust
    if policy.switches.trust and trust is not None:
        result *= trust.astype(np.float32)[pool.site_index[rows]]
    return result
