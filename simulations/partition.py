"""Dealing the samples of a pool out to sites."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulations.config import FederationConfig
from simulations.errors import DataInvalid

Integers = NDArray[np.int64]


def make_partition(
    classes: Integers, groups: Integers, config: FederationConfig, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Rows of the pool and the site of each.

    Args:
        classes: int64[n].
        groups: int64[n], the data's own sites, or -1.
        config: how to deal.
        rng: a seeded generator.

    Returns:
        int64[m] rows (a row may appear at several cloned sites) and int64[m] sites.

    Raises:
        DataInvalid: the data has no sites of its own, or there are fewer rows than sites.
    """
    rows = long_tail(classes, config.rho, rng)
    if config.partition == "column":
        if (groups[rows] < 0).any():
            raise DataInvalid("partition = column needs a site for every training sample")
        sites = np.unique(groups[rows], return_inverse=True)[1].astype(np.int64)
        return rows, sites
    if len(rows) < config.sites:
        raise DataInvalid(f"{len(rows)} samples cannot fill {config.sites} sites")
    deal = balanced_dirichlet if config.sizes == "equal" else unequal_dirichlet
    sites = deal(classes[rows], config.sites, config.alpha, rng)
    if config.rare_class_site:
        rarest = int(np.bincount(classes[rows]).argmin())
        sites[classes[rows] == rarest] = 0
    return _cloned(rows, sites, config.clones)


def long_tail(classes: Integers, rho: float, rng: np.random.Generator) -> Integers:
    """Rows of a pool whose class sizes fall geometrically from the commonest to the rarest.

    >>> kept = long_tail(np.repeat([0, 1], 100), 10.0, np.random.default_rng(0))
    >>> np.bincount(np.repeat([0, 1], 100)[kept]).tolist()
    [100, 10]
    """
    counts = np.bincount(classes)
    if rho <= 1:
        return np.arange(len(classes))
    order = rng.permutation(len(counts)) if len(counts) > 2 else np.arange(len(counts))
    shares = rho ** (-np.arange(len(counts)) / max(1, len(counts) - 1))
    kept = []
    for rank, group in enumerate(order.tolist()):
        members = np.flatnonzero(classes == group)
        size = max(1, round(min(len(members), counts.max() * shares[rank])))
        kept.append(rng.choice(members, min(size, len(members)), replace=False))
    return np.sort(np.concatenate(kept))


def balanced_dirichlet(
    classes: Integers, sites: int, alpha: float, rng: np.random.Generator
) -> Integers:
    """Sites of equal size whose class mix is drawn from a Dirichlet distribution.

    Each site draws its mix; rows are dealt one at a time to the sites in turn, each site asking
    for a class by its mix among those that are left. Source: the equal-size variant used by LoGo,
    Kim et al., 2023; the Dirichlet model is Hsu et al., "Measuring the effects of non-identical
    data distribution", 2019.
    """
    count = int(classes.max()) + 1
    share = np.bincount(classes, minlength=count) / len(classes)
    mixes = rng.dirichlet(alpha * count * share + 1e-9, sites)
    piles = [rng.permutation(np.flatnonzero(classes == c)).tolist() for c in range(count)]
    left = np.array([len(pile) for pile in piles], dtype=np.float64)
    result = np.zeros(len(classes), dtype=np.int64)
    turn = np.tile(np.arange(sites), len(classes) // sites + 1)[: len(classes)]
    draws = rng.random(len(classes))
    for site, draw in zip(turn.tolist(), draws.tolist(), strict=True):
        wish = mixes[site] * (left > 0)
        total = wish.sum()
        weights = wish / total if total > 1e-12 else left / left.sum()
        group = int(np.searchsorted(np.cumsum(weights), draw * 0.999999999))
        group = min(group, count - 1)
        while not piles[group]:
            group = (group + 1) % count
        result[piles[group].pop()] = site
        left[group] -= 1
    return result


def unequal_dirichlet(
    classes: Integers, sites: int, alpha: float, rng: np.random.Generator
) -> Integers:
    """Each class is spread over the sites by its own Dirichlet draw; site sizes follow."""
    result = np.zeros(len(classes), dtype=np.int64)
    for group in range(int(classes.max()) + 1):
        members = np.flatnonzero(classes == group)
        shares = rng.dirichlet(np.full(sites, alpha))
        result[members] = rng.choice(sites, len(members), p=shares)
    for site in np.setdiff1d(np.arange(sites), result):
        result[rng.integers(len(classes))] = site
    return result


def _cloned(rows: Integers, sites: Integers, clones: int) -> tuple[Integers, Integers]:
    """The first ``clones`` sites all hold the samples of site 0."""
    if clones < 2:
        return rows, sites
    kept = sites >= clones
    original = rows[sites == 0]
    copies = [rows[kept], *([original] * clones)]
    where = [sites[kept], *(np.full(len(original), site) for site in range(clones))]
    return np.concatenate(copies), np.concatenate(where)
