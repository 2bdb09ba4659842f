"""Histogram mode: no row leaves a site, only noised counts by cell, class and score bin.

The allocator sees the counts as candidates that differ in nothing but their key and bin, so the
same objective, limits and engines decide, behind the same ``allocate``. The answer to a site is
one quota and a threshold per cell and class; the site picks its own candidates by these.

    made = noised_histogram(counts, epsilon=1.0, rng=site_rng)         # at the site
    pool = histogram_pool({"north": made}, shape, progress)            # at the coordinator
    quotas = quotas_of(pool, allocate(pool, budget, policy, rng), shape)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.errors import AllocationError
from coordinator.core.allocation.noise import geometric_noise
from coordinator.core.allocation.policy import Phase, Policy, Reason, UtilityWeights
from coordinator.core.allocation.pool import SCORE_LEVELS, Pool, Progress
from coordinator.core.allocation.result import Allocation

Integers = NDArray[np.int64]
MOST_ROWS_PER_COUNT = 100_000
"""A count beyond this is refused; it is no honest pool of one site and cell."""


@dataclass(frozen=True, slots=True)
class HistogramShape:
    """Axes of a histogram: cells, classes by prototype, and bins of the margin score."""

    cells: int
    classes: int
    bins: int = 16

    @property
    def counts(self) -> tuple[int, int, int]:
        """Shape of the count array."""
        return (self.cells, self.classes, self.bins)


@dataclass(frozen=True, slots=True)
class SiteQuota:
    """What one site is told: how many labels, and from which score bin on in each key.

    Attributes:
        site_id: site.
        labels: labels that the site may give.
        keys: (cell, class, lowest bin, labels) of each key that takes part.
    """

    site_id: str
    labels: int
    keys: tuple[tuple[int, int, int, int], ...]


def count_histogram(
    cells: Integers, classes: Integers, margins: NDArray[np.uint8], shape: HistogramShape
) -> Integers:
    """int64[cells, classes, bins]: exact counts; they stay on the device.

    >>> shape = HistogramShape(1, 2, 4)
    >>> count_histogram(np.array([0]), np.array([1]), np.uint8([63]), shape)[0, 1].tolist()
    [0, 0, 0, 1]
    """
    bins = margins.astype(np.int64) * shape.bins // (SCORE_LEVELS + 1)
    flat = (cells * shape.classes + classes) * shape.bins + bins
    counts = np.bincount(flat, minlength=int(np.prod(shape.counts)))
    return counts.reshape(shape.counts).astype(np.int64)


def noised_histogram(counts: Integers, *, epsilon: float, rng: np.random.Generator) -> Integers:
    """int64, counts with two-sided geometric noise, cut off at 0; the only thing that leaves.

    Cutting off is post-processing and costs no privacy.
    """
    noise = geometric_noise(counts.shape, epsilon=epsilon, rng=rng)
    return np.asarray(np.maximum(counts + noise, 0), dtype=np.int64)


def denoised(counts: Integers, *, epsilon: float) -> Integers:
    """int64, counts below the noise's reach set to 0, so that empty keys draw no budget.

    Of counts that are truly 0 only one in a thousand stays.
    """
    reach = int(np.ceil(np.log(1000.0) / epsilon))
    return np.where(counts > reach, counts, 0)


def histogram_pool(
    sites: Mapping[str, Integers], shape: HistogramShape, progress: Progress
) -> Pool:
    """The pool that the counts describe, one row per counted candidate.

    Args:
        sites: counts by site id, in the campaign's order of sites.
        shape: axes of all of them.
        progress: what is labelled already.

    Raises:
        AllocationError: a histogram has another shape or an impossible count.
    """
    parts = [_expanded(name, counts, shape) for name, counts in sites.items()]
    site = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int32)
    flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    bins = flat % shape.bins
    classes = (flat // shape.bins % shape.classes).astype(np.uint16)
    margins = ((bins * 2 + 1) * (SCORE_LEVELS + 1) // (2 * shape.bins)).astype(np.uint8)
    none = np.zeros(len(flat), dtype=np.uint8)
    return Pool(
        candidate_ids=_stand_in_ids(site, flat),
        site_index=site,
        agent_index=site,
        margins=margins,
        entropies=margins,
        top_probabilities=(SCORE_LEVELS - margins // 2).astype(np.uint8),
        divergences=none,
        predicted_classes=classes,
        runner_up_classes=classes,
        prototype_classes=classes,
        cell_ids=(flat // (shape.bins * shape.classes)).astype(np.uint16),
        density_bands=none,
        cost_bands=none,
        site_ids=tuple(sites),
        class_count=shape.classes,
        progress=progress,
    )


def quotas_of(pool: Pool, found: Allocation, shape: HistogramShape) -> tuple[SiteQuota, ...]:
    """One answer per site: its quota, and per key the lowest bin and the labels bought."""
    useful = found.rows[np.isin(found.reasons, (Reason.USEFUL, Reason.CLASS_FLOOR))]
    answers = []
    for site, site_id in enumerate(pool.site_ids):
        rows = useful[pool.site_index[useful] == site]
        keys = pool.cell_ids[rows].astype(np.int64) * shape.classes + pool.prototype_classes[rows]
        bins = pool.margins[rows].astype(np.int64) * shape.bins // (SCORE_LEVELS + 1)
        lines = []
        for key in np.unique(keys).tolist():
            inside = keys == key
            cell, group = divmod(key, shape.classes)
            lines.append((cell, group, int(bins[inside].min()), int(inside.sum())))
        explored = int((found.site_index[found.reasons == Reason.EXPLORE] == site).sum())
        answers.append(SiteQuota(site_id, len(rows) + explored, tuple(lines)))
    return tuple(answers)


def histogram_policy(policy: Policy) -> Policy:
    """The policy as far as histograms can serve it: only the margin score is counted.

    Runner-up classes and density are not in a histogram either, so the runner-up's share falls to
    the prototype's class, and neither confusions nor novelty count. Sites pick their own
    candidates, the best first, so chance between the rows that stand for them would only blur what
    each site is told.
    """
    weights = {phase: UtilityWeights(margin=1.0) for phase in Phase}
    # Margins of an untrained model say nothing; with no density either, all samples are alike.
    weights[Phase.COLD] = UtilityWeights(density=1.0)
    known = replace(policy.switches, runner_up=False, pairs=False, chance=False, novelty=False)
    return replace(policy, weights=weights, switches=known)


def pick_at_site(
    keys: NDArray[np.int64], margins: NDArray[np.uint8], quota: SiteQuota, shape: HistogramShape
) -> Integers:
    """Rows that the site itself picks: in each key its best candidates, as many as it was told.

    What a key cannot give, because noise had made it look larger, goes to the site's best other
    candidates, so the quota is used where candidates exist.

    Args:
        keys: int64[n], cell times classes plus class of each candidate of the site.
        margins: uint8[n].
        quota: the coordinator's answer.
        shape: axes of the histogram.
    """
    order = np.argsort(-margins.astype(np.int64), kind="stable")
    taken = np.zeros(len(keys), dtype=np.bool_)
    for cell, group, _, labels in quota.keys:
        members = order[keys[order] == cell * shape.classes + group]
        taken[members[:labels]] = True
    spare = quota.labels - int(taken.sum())
    if spare > 0:
        taken[order[~taken[order]][:spare]] = True
    return np.flatnonzero(taken)


def _expanded(name: str, counts: Integers, shape: HistogramShape) -> Integers:
    if counts.shape != shape.counts:
        raise AllocationError(f"site {name}: histogram is {counts.shape}, not {shape.counts}")
    if counts.size and (counts.min() < 0 or counts.max() > MOST_ROWS_PER_COUNT):
        raise AllocationError(f"site {name}: counts must lie between 0 and {MOST_ROWS_PER_COUNT}")
    flat = counts.ravel()
    return np.repeat(np.arange(len(flat)), flat)


def _stand_in_ids(site: NDArray[np.int32], flat: Integers) -> NDArray[np.uint8]:
    """Ids for rows that have none: equal for equal inputs, distinct inside a pool."""
    first = np.ones(len(flat), dtype=np.bool_)
    first[1:] = (flat[1:] != flat[:-1]) | (site[1:] != site[:-1])
    starts = np.flatnonzero(first)
    rank = np.arange(len(flat)) - np.repeat(starts, np.diff(np.append(starts, len(flat))))
    words = np.stack([site.astype(np.uint64) << np.uint64(40) | flat.astype(np.uint64), rank], 1)
    salt = np.frombuffer(hashlib.sha256(b"stand-in ids").digest()[:16], dtype="<u8")
    mixed = (words.astype(np.uint64) ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    return np.ascontiguousarray(mixed.astype("<u8")).view(np.uint8).reshape(len(flat), 16)
