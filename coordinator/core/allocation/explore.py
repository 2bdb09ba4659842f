"""The explore share: labels drawn by chance, with known inclusion probabilities.

Useful picks say nothing about live accuracy, because they were picked for being hard. Explore
picks do, whatever their probabilities are, as long as these are known before any label exists.
One part of each site's draw is blind to the scores. The other part follows the predicted spread of
the error, which is largest where the model is unsure: the best draw for a difference estimator,
and labels that teach. The blind part bounds every weight, so a model that is wrongly sure of itself
cannot spoil the estimate.

Candidates of a site that were sent with the same top probability form a stratum. All of a stratum
have the same probability, and counts are rounded systematically along the strata.

Sources: Neyman, "On the two different aspects of the representative method", 1934 (draw by
spread); Zrnic and Candès, "Active statistical inference", 2024, and Kossen et al., "Active
testing", 2021 (predicted spread as propensity, mixed with a uniform part).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import keyed_numbers
from coordinator.core.allocation.pool import SCORE_LEVELS, Pool
from coordinator.core.allocation.result import ExploreFrame

LEVELS = SCORE_LEVELS + 1


@dataclass(frozen=True, slots=True, eq=False)
class ExploreDraw:
    """Rows drawn by chance and the probability that each had.

    Attributes:
        rows: int64[m].
        inclusion_probabilities: float64[m], in (0, 1].
        frame: the population.
    """

    rows: NDArray[np.int64]
    inclusion_probabilities: NDArray[np.float64]
    frame: ExploreFrame


def draw_explore(
    pool: Pool,
    *,
    label_target: float,
    site_limits: NDArray[np.int64],
    key: NDArray[np.uint64],
    doubt_share: float = 0.0,
) -> ExploreDraw:
    """Draws about ``label_target`` candidates, from every site that has any.

    Args:
        pool: the open candidates.
        label_target: expected number of labels, at least 0.
        site_limits: int64[sites], most labels that each site may get by this draw.
        key: the chance key of the allocation.
        doubt_share: part of each site's draw that follows the predicted spread of the error, 0 to
            below 1; the rest is uniform.
    """
    strata = pool.site_index.astype(np.int32) * LEVELS + pool.top_probabilities
    counts = np.bincount(strata, minlength=pool.site_count * LEVELS).astype(np.int64)
    counts = counts.reshape(-1, LEVELS)
    sizes = counts.sum(axis=1)
    targets = site_targets(sizes, label_target=label_target, limits=np.minimum(sizes, site_limits))
    expected = stratum_targets(counts, targets, doubt_share=doubt_share)
    drawn = _round_systematically(expected.ravel(), key)
    rows = _lowest_per_stratum(pool, strata, drawn, key)
    probability = np.divide(expected, counts, out=np.zeros(counts.shape), where=counts > 0)
    return ExploreDraw(
        rows=rows,
        inclusion_probabilities=np.minimum(probability.ravel()[strata[rows]], 1.0),
        frame=explore_frame(pool, targets),
    )


def empty_draw(pool: Pool) -> ExploreDraw:
    """No draw: nothing is explored and no population is described."""
    shape = (pool.site_count, pool.class_count)
    frame = ExploreFrame(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(pool.site_count))
    return ExploreDraw(np.zeros(0, dtype=np.int64), np.zeros(0), frame)


def site_targets(
    sizes: NDArray[np.int64], *, label_target: float, limits: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Expected labels by site: proportional to the square root of its pool, within its limit.

    A compromise between the best estimate of the whole and equally good ones of every site.

    Source: power allocation, Bankier, "Power allocations: determining sample sizes for
    subnational areas", 1988.

    >>> site_targets(np.array([100, 400]), label_target=6.0, limits=np.array([100, 3])).tolist()
    [3.0, 3.0]
    """
    shares = np.sqrt(sizes.astype(np.float64))
    return _in_proportion(shares, total=label_target, limits=limits.astype(np.float64))


def stratum_targets(
    counts: NDArray[np.int64], targets: NDArray[np.float64], *, doubt_share: float
) -> NDArray[np.float64]:
    """float64[sites, levels]: expected labels by site and level of the top probability.

    The error of a prediction that is right with probability f spreads by sqrt(f (1 - f)).

    Args:
        counts: int64[sites, levels], candidates.
        targets: float64[sites], expected labels, at most a site's candidates.
        doubt_share: part that follows the spread.

    >>> counts = np.zeros((1, 64), np.int64)
    >>> counts[0, 32], counts[0, 63] = 10, 90
    >>> blind, keen = (stratum_targets(counts, np.array([5.0]), doubt_share=d) for d in (0, 0.5))
    >>> blind[0, [32, 63]].tolist(), keen[0, [32, 63]].tolist()
    ([0.5, 4.5], [2.75, 2.25])
    """
    levels = np.arange(LEVELS) / SCORE_LEVELS
    spread = np.sqrt(levels * (1.0 - levels))
    sizes = counts.sum(axis=1)
    mean = counts @ spread / np.maximum(sizes, 1)
    result = np.zeros(counts.shape)
    for site in np.flatnonzero(targets > 0).tolist():
        tilt = np.ones(LEVELS) if mean[site] <= 0 else spread / mean[site]
        shares = counts[site] * (1.0 - doubt_share + doubt_share * tilt)
        limits = counts[site].astype(np.float64)
        result[site] = _in_proportion(shares, total=float(targets[site]), limits=limits)
    return result


def _in_proportion(
    shares: NDArray[np.float64], *, total: float, limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The total dealt out in proportion to the shares; what passes a limit goes to the others."""
    dealt = np.zeros(len(shares))
    active = (limits > 0) & (shares > 0)
    most = min(total, float(limits[active].sum()))
    left = most
    while left > 1e-12 and active.any():
        step = np.where(active, shares, 0.0)
        dealt = np.minimum(dealt + step * (left / step.sum()), limits)
        active &= dealt < limits
        left = most - float(dealt.sum())
    return dealt


def explore_frame(pool: Pool, targets: NDArray[np.float64]) -> ExploreFrame:
    """Counts and confidence sums of the population, by site and predicted class."""
    shape = (pool.site_count, pool.class_count)
    groups = pool.site_index.astype(np.int64) * pool.class_count + pool.predicted_classes
    size = shape[0] * shape[1]
    levels = np.bincount(groups, weights=pool.top_probabilities, minlength=size)
    counts = np.bincount(groups, minlength=size)
    return ExploreFrame(
        counts=counts.reshape(shape).astype(np.int64),
        probability_sums=levels.reshape(shape) / SCORE_LEVELS,
        targets=targets,
    )


def _round_systematically(
    targets: NDArray[np.float64], key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Whole numbers with the targets as expectation; their sum differs by less than one."""
    ids = np.zeros((1, 16), dtype=np.uint8)
    start = float(keyed_numbers(ids, key, purpose="rounding")[0]) / 2.0**64
    edges = np.floor(np.concatenate([[0.0], np.cumsum(targets)]) + start)
    return np.diff(edges).astype(np.int64)


def _lowest_per_stratum(
    pool: Pool,
    strata: NDArray[np.int32],
    counts: NDArray[np.int64],
    key: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """The ``counts[g]`` rows of each stratum with the lowest keyed number, in order of strata."""
    total = int(counts.sum())
    if not total:
        return np.zeros(0, dtype=np.int64)
    wanted = (counts > 0)[strata]
    near = np.flatnonzero(wanted) if not wanted.all() else np.arange(len(pool))
    numbers = keyed_numbers(pool.candidate_ids[near], key, purpose="explore")
    sizes = np.bincount(strata[near], minlength=len(counts))
    # A row beyond three times its stratum's share plus a few is never among the lowest ones; where
    # chance says otherwise all are looked at.
    cut = np.minimum((counts * 3.0 + 40.0) / np.maximum(sizes, 1), 1.0)
    low = numbers <= (cut * (2.0**64 - 2048)).astype(np.uint64)[strata[near]]
    if (np.bincount(strata[near[low]], minlength=len(counts)) >= counts).all():
        near, numbers = near[low], numbers[low]
    order = near[np.lexsort((numbers, strata[near]))]
    groups = strata[order]
    rank = np.arange(len(order)) - np.searchsorted(groups, np.arange(len(counts)))[groups]
    return np.asarray(order[rank < counts[groups]], dtype=np.int64)
