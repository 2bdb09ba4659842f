"""Limits of a cycle: what each site may take, and what is left of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What is left of the budget.

    Attributes:
        site_labels: int64[sites], labels that each site's experts can still give.
        site_costs: int64[sites], cost units that each site may still take.
        cost_limit: cost units left in all.
    """

    site_labels: NDArray[np.int64]
    site_costs: NDArray[np.int64]
    cost_limit: int

    def less(self, sites: NDArray[np.int32], costs: NDArray[np.int64]) -> Limits:
        """The limits after some picks."""
        count = len(self.site_labels)
        spent = np.bincount(sites, weights=costs, minlength=count).astype(np.int64)
        return Limits(
            site_labels=self.site_labels - np.bincount(sites, minlength=count),
            site_costs=self.site_costs - spent,
            cost_limit=self.cost_limit - int(costs.sum()),
        )


def site_cost_caps(pool: Pool, budget: Budget, policy: Policy) -> NDArray[np.int64]:
    """int64[sites], most cost units that each site may take of the cycle's budget.

    The share cap is a multiple of an equal share: it bounds what a site that lies about its
    scores can take from the others, whatever it claims. It shrinks with the square of the trust
    in the site, because a lower weight alone does not stop a claim that nobody else makes.
    """
    limit = budget.cost_limit
    if not policy.switches.share_cap or pool.site_count <= 1:
        return np.full(pool.site_count, limit, dtype=np.int64)
    equal = min(1.0, policy.share_cap_multiple / pool.site_count)
    share: NDArray[np.float64] = np.full(pool.site_count, equal)
    trust = pool.progress.site_trust
    if policy.switches.trust and trust is not None:
        share = share * trust**2
    caps = np.minimum(np.maximum(limit * share, 1.0), limit)
    return np.asarray(caps, dtype=np.int64)
