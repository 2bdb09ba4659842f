"""One number a candidate: how much its label may teach, apart from all other picks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import chance_factors, shaken
from coordinator.core.allocation.policy import Phase, Policy
from coordinator.core.allocation.pool import DENSITY_LEVELS, SCORE_LEVELS, Pool
from coordinator.core.allocation.setting import Setting

DENSITY_PLACE = 3
"""Density among the columns that `UtilityWeights` weighs."""


def single_score(
    setting: Setting,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """The only score column that counts and its table of utilities, or None if there is more.

    Then utility rises with one byte, and rows can be compared without computing it.
    """
    pool, policy, phase = setting.pool, setting.policy, setting.phase
    if has_chance(policy):
        return None
    trust = pool.progress.site_trust
    if policy.switches.trust and trust is not None and (trust < 1).any():
        return None
    if novelty_share(pool, policy, phase) > 0.0:
        return None
    weights = policy.weights[phase].normalised()
    if np.count_nonzero(weights) != 1:
        return None
    place = int(np.flatnonzero(weights)[0])
    columns = (pool.margins, pool.entropies, pool.divergences, pool.density_bands)
    largest, steps = _scale(place, phase)
    return columns[place], (steps / largest).astype(np.float32)


def utilities(
    setting: Setting, rows: NDArray[np.int64] | slice = slice(None)
) -> NDArray[np.float32]:
    """float32 in [0, 1]: weighted scores of the phase and novelty, times chance and trust.

    Scores are compared as they are, not as ranks inside a site: ranks would give each site the
    same share of the top, whatever it still has to teach. Chance belongs to the candidate's id and
    the key, so a row has one utility however often it is worked out.
    """
    pool, policy, phase = setting.pool, setting.policy, setting.phase
    novelty = novelty_share(pool, policy, phase)
    weights = policy.weights[phase].normalised() * np.float32(1.0 - novelty)
    columns = (pool.margins, pool.entropies, pool.divergences, pool.density_bands)
    result = np.zeros(len(pool.margins[rows]), dtype=np.float32)
    for place, (weight, column) in enumerate(zip(weights.tolist(), columns, strict=True)):
        if weight:
            # One table look-up per row instead of a conversion and a product.
            largest, steps = _scale(place, phase)
            result += (steps * (weight / largest)).astype(np.float32)[column[rows]]
    if novelty:
        result += (novelty * novelty_ranks(pool)).astype(np.float32)[pool.density_bands[rows]]
    if has_chance(policy):
        factors = chance_factors(policy.coldness)
        shaken(result, pool.candidate_ids[rows], setting.key, factors)
    trust = pool.progress.site_trust
    if policy.switches.trust and trust is not None:
        result *= trust.astype(np.float32)[pool.site_index[rows]]
    return result


def has_chance(policy: Policy) -> bool:
    """Whether chance counts in the ranking."""
    return policy.switches.chance and math.isfinite(policy.coldness)


def novelty_share(pool: Pool, policy: Policy, phase: Phase) -> float:
    """How much novelty counts in a utility, in [0, 1].

    A model is not unsure of what it has never seen, so what lies far from every label is worth a
    look. An untrained model knows no distances, and without them there is nothing to count.
    """
    if not policy.switches.novelty or phase is Phase.COLD or not len(pool):
        return 0.0
    if pool.density_bands.min() == pool.density_bands.max():
        return 0.0
    return policy.novelty_weight


def _scale(place: int, phase: Phase) -> tuple[int, NDArray[np.int64]]:
    """Largest step of a score column, and int64[256], the step of each of its levels.

    In a cold phase a sample that others stand for is still worth a little: then the whole budget is
    spent, however alike the samples of a pool are.
    """
    levels = np.arange(256)
    if place != DENSITY_PLACE:
        return SCORE_LEVELS, levels
    if phase is Phase.COLD:
        return DENSITY_LEVELS + 1, levels + 1
    return DENSITY_LEVELS, levels


def novelty_ranks(pool: Pool) -> NDArray[np.float64]:
    """float64[16]: share of the candidates that are denser than each band, ties counted half.

    A rank over all sites, because how far "far" is depends on the model version.
    """
    counts = np.bincount(pool.density_bands, minlength=DENSITY_LEVELS + 1).astype(np.float64)
    denser = counts.sum() - np.cumsum(counts)
    return np.asarray((denser + counts / 2) / counts.sum(), dtype=np.float64)
