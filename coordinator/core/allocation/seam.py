"""The seam: ``allocate(pool, budget, policy, rng)`` decides, and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import draw_key, keyed_numbers
from coordinator.core.allocation.explore import ExploreDraw, draw_explore
from coordinator.core.allocation.limits import row_costs, site_cost_caps, within_limits
from coordinator.core.allocation.phases import phase_of
from coordinator.core.allocation.policy import (
    Budget,
    Phase,
    Policy,
    Reason,
    check_budget,
    check_policy,
)
from coordinator.core.allocation.pool import Pool, check_pool
from coordinator.core.allocation.result import Allocation
from coordinator.core.allocation.utility import utilities


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What is left of the budget: labels and cost units by site, and cost units in all."""

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


def allocate(pool: Pool, budget: Budget, policy: Policy, rng: np.random.Generator) -> Allocation:
    """Spends one cycle's budget on the open candidates of all sites.

    Args:
        pool: open candidates; their row order has no influence.
        budget: what the cycle may cost.
        policy: how to spend it.
        rng: gives the chance key, its only use; equal generators give equal allocations.

    Returns:
        Picks within every limit. A budget that cannot be spent whole, or a class floor that
        cannot be met, is no error: it shows as shortfalls.

    Raises:
        AllocationError: an input is malformed.
    """
    check_pool(pool)
    check_budget(budget, sites=pool.site_count, classes=pool.class_count)
    check_policy(policy)
    key = draw_key(rng)
    phase = phase_of(pool.progress, class_count=pool.class_count, policy=policy)
    costs = row_costs(pool, budget, policy)
    limits = Limits(budget.site_capacity, site_cost_caps(pool, budget, policy), budget.cost_limit)
    draw = _explore(pool, limits, costs, policy=policy, key=key)
    left = limits.less(pool.site_index[draw.rows], costs[draw.rows])
    useful = _rank(pool, policy, phase, draw=draw, key=key)
    fits = within_limits(
        pool.site_index[useful],
        costs[useful],
        site_labels=left.site_labels,
        site_costs=left.site_costs,
        cost_limit=left.cost_limit,
    )
    useful = useful[fits]
    rows = np.concatenate([useful, draw.rows])
    reasons = np.repeat(
        np.array([Reason.USEFUL, Reason.EXPLORE], dtype=np.uint8), [len(useful), len(draw.rows)]
    )
    return Allocation(
        rows=rows,
        candidate_ids=pool.candidate_ids[rows],
        site_index=pool.site_index[rows],
        reasons=reasons,
        inclusion_probabilities=np.concatenate(
            [np.zeros(len(useful)), draw.inclusion_probabilities]
        ),
        costs=costs[rows],
        gains=np.concatenate(
            [utilities(pool, policy, phase)[useful].astype(np.float64), np.zeros(len(draw.rows))]
        ),
        phase=phase,
        engine="ranking",
        key=key,
        frame=draw.frame,
    )


def _explore(
    pool: Pool,
    limits: Limits,
    costs: NDArray[np.int64],
    *,
    policy: Policy,
    key: NDArray[np.uint64],
) -> ExploreDraw:
    """Draws the explore share so that even its dearest outcome stays within every limit."""
    ratio = policy.explore_ratio if policy.switches.explore else 0.0
    if not len(pool) or not ratio:
        return draw_explore(pool, label_target=0.0, site_limits=limits.site_labels, key=key)
    dearest = np.zeros(pool.site_count, dtype=np.int64)
    np.maximum.at(dearest, pool.site_index, costs)
    affordable = np.minimum(limits.site_labels, limits.site_costs // np.maximum(dearest, 1))
    target = min(
        ratio * limits.cost_limit / float(costs.mean()), limits.cost_limit / int(dearest.max())
    )
    return draw_explore(pool, label_target=np.floor(target), site_limits=affordable, key=key)


def _rank(
    pool: Pool, policy: Policy, phase: Phase, *, draw: ExploreDraw, key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """All rows that the explore draw left, most useful first; chance breaks ties."""
    left = np.ones(len(pool), dtype=np.bool_)
    left[draw.rows] = False
    rows = np.flatnonzero(left)
    ties = keyed_numbers(pool.candidate_ids[rows], key, purpose="tie")
    order = np.lexsort((ties, -utilities(pool, policy, phase)[rows]))
    return np.asarray(rows[order], dtype=np.int64)
