"""Limits of a cycle: what each site may take, and walking a ranking without passing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool

MATURE_TRUST = 0.9
"""From this trust on a site may take twice the ordinary share."""


def row_costs(pool: Pool, budget: Budget, policy: Policy) -> NDArray[np.int64]:
    """int64[n], cost units of each row; all equal to the first band when costs are switched off."""
    costs = np.asarray(budget.band_costs, dtype=np.int64)
    if not policy.switches.costs:
        costs = np.full(8, costs[0])
    return np.asarray(costs[pool.cost_bands], dtype=np.int64)


def site_cost_caps(pool: Pool, budget: Budget, policy: Policy) -> NDArray[np.int64]:
    """int64[sites], most cost units that each site may take of the cycle's budget.

    The share cap is a multiple of an equal share: it bounds what a site that lies about its
    scores can take from the others, whatever it claims.
    """
    limit = budget.cost_limit
    if not policy.switches.share_cap or pool.site_count <= 1:
        return np.full(pool.site_count, limit, dtype=np.int64)
    share = min(1.0, policy.share_cap_multiple / pool.site_count)
    return np.full(pool.site_count, max(1, int(limit * share)) if limit else 0, dtype=np.int64)


def within_limits(
    ranked_sites: NDArray[np.int32],
    ranked_costs: NDArray[np.int64],
    *,
    site_labels: NDArray[np.int64],
    site_costs: NDArray[np.int64],
    cost_limit: int,
) -> NDArray[np.bool_]:
    """Which items of a ranking to take, walking from the best on and skipping what does not fit.

    Args:
        ranked_sites: int32[n], site of each item, best item first.
        ranked_costs: int64[n], its cost.
        site_labels: int64[sites], labels left at each site.
        site_costs: int64[sites], cost units left at each site.
        cost_limit: cost units left in all.

    >>> within_limits(
    ...     np.int32([0, 0, 1, 1]), np.int64([1, 1, 5, 1]),
    ...     site_labels=np.int64([1, 9]), site_costs=np.int64([9, 9]), cost_limit=3,
    ... ).tolist()
    [True, False, False, True]
    """
    taken = np.zeros(len(ranked_sites), dtype=np.bool_)
    labels = site_labels.tolist()
    money = site_costs.tolist()
    left = cost_limit
    for position, (site, cost) in enumerate(
        zip(ranked_sites.tolist(), ranked_costs.tolist(), strict=True)
    ):
        if left <= 0:
            break
        if labels[site] > 0 and money[site] >= cost and left >= cost:
            labels[site] -= 1
            money[site] -= cost
            left -= cost
            taken[position] = True
    return taken
