"""How samples fall to sites: Dirichlet label skew, and stratified held-out splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def dirichlet_sites(
    labels: NDArray[np.int64], *, site_count: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws a site for each sample: each class is split by shares from Dirichlet(alpha).

    Small alpha means that a class lives at few sites (Hsu, Qi, Brown 2019, "Measuring the effects
    of non-identical data distribution"). Shares are drawn again, up to 100 times, until no site
    holds less than a quarter of an equal share.

    Args:
        labels: int64[n], class index of each sample.
        site_count: Sites, at least 1.
        alpha: Concentration, above 0.
        rng: The only source of chance.

    Returns:
        int64[n], site index of each sample.

    >>> sites = dirichlet_sites(
    ...     np.repeat(np.arange(4), 50), site_count=2, alpha=1.0, rng=np.random.default_rng(0)
    ... )
    >>> sorted(set(sites.tolist()))
    [0, 1]
    """
    floor = len(labels) / site_count / 4
    sites = np.zeros(len(labels), dtype=np.int64)
    for _ in range(100):
        for class_index in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == class_index))
            shares = rng.dirichlet(np.full(site_count, alpha))
            cuts = (np.cumsum(shares)[:-1] * len(members)).round().astype(int)
            for site, chunk in enumerate(np.split(members, cuts)):
                sites[chunk] = site
        if np.bincount(sites, minlength=site_count).min() >= floor:
            break
    return sites


def stratified_test_mask(
    groups: Sequence[object], *, ratio: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Marks about `ratio` of each group as held out; a group of one stays in the pool.

    Args:
        groups: One hashable value a sample, such as (site, class).
        ratio: Share to hold out, in (0, 1).
        rng: The only source of chance.

    Returns:
        bool[n], True where held out.

    >>> mask = stratified_test_mask(["a"] * 10 + ["b"], ratio=0.2, rng=np.random.default_rng(0))
    >>> int(mask.sum()), bool(mask[-1])
    (2, False)
    """
    members: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    mask = np.zeros(len(groups), dtype=np.bool_)
    for rows in members.values():
        count = min(len(rows) - 1, max(1, round(ratio * len(rows))))
        mask[rng.permutation(rows)[:count]] = True
    return mask
