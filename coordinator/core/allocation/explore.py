"""The explore share: a few labels drawn by chance, with known inclusion probabilities.

Useful picks say nothing about live accuracy, because they were picked for being hard. Explore
picks do: per site a fixed number of candidates is drawn without replacement, blind to the scores.
A nearly constant probability gives the narrowest intervals in practice; the predicted confidence
enters as control variate in :mod:`coordinator.core.estimation`, not as propensity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import keyed_numbers
from coordinator.core.allocation.pool import SCORE_LEVELS, Pool
from coordinator.core.allocation.result import ExploreFrame


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
    pool: Pool, *, label_target: float, site_limits: NDArray[np.int64], key: NDArray[np.uint64]
) -> ExploreDraw:
    """Draws about ``label_target`` candidates, from every site that has any.

    Args:
        pool: the open candidates.
        label_target: expected number of labels, at least 0.
        site_limits: int64[sites], most labels that each site may get by this draw.
        key: the chance key of the allocation.
    """
    sizes = np.bincount(pool.site_index, minlength=pool.site_count).astype(np.int64)
    targets = site_targets(sizes, label_target=label_target, limits=np.minimum(sizes, site_limits))
    counts = _round_systematically(targets, key)
    rows = _lowest_per_site(pool, counts, key)
    probability = np.divide(targets, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    return ExploreDraw(
        rows=rows,
        inclusion_probabilities=probability[pool.site_index[rows]],
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
    limit = limits.astype(np.float64)
    targets = np.zeros(len(sizes))
    active = limit > 0
    left = min(label_target, float(limit.sum()))
    while left > 1e-12 and active.any():
        step = np.where(active, shares, 0.0)
        proposal = targets + step * (left / step.sum())
        targets = np.minimum(proposal, limit)
        active &= targets < limit
        left = min(label_target, float(limit.sum())) - float(targets.sum())
    return targets


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


def _lowest_per_site(
    pool: Pool, counts: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """The ``counts[s]`` rows of each site with the lowest keyed number: a simple random sample."""
    total = int(counts.sum())
    if not total:
        return np.zeros(0, dtype=np.int64)
    numbers = keyed_numbers(pool.candidate_ids, key, purpose="explore")
    sizes = np.bincount(pool.site_index, minlength=pool.site_count)
    ratio = np.divide(counts, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    # A row beyond three times its site's share plus a few is never among the lowest ones; where
    # chance says otherwise the site is looked at whole.
    cut = np.minimum(ratio * 3.0 + 40.0 / np.maximum(sizes, 1), 1.0)
    near = np.flatnonzero(numbers <= (cut * (2.0**64 - 2048)).astype(np.uint64)[pool.site_index])
    short = np.bincount(pool.site_index[near], minlength=pool.site_count) < counts
    if short.any():
        near = np.flatnonzero(np.isin(pool.site_index, np.flatnonzero(counts > 0)))
    order = near[np.lexsort((numbers[near], pool.site_index[near]))]
    sites = pool.site_index[order]
    starts = np.searchsorted(sites, np.arange(pool.site_count))
    rank = np.arange(len(order)) - starts[sites]
    return np.asarray(order[rank < counts[sites]], dtype=np.int64)
