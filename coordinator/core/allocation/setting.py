"""What follows from pool, budget and policy before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import keyed_numbers
from coordinator.core.allocation.explore import ExploreDraw, draw_explore
from coordinator.core.allocation.limits import Limits, row_costs, site_cost_caps
from coordinator.core.allocation.offer import Offer, floor_classes, missing_labels
from coordinator.core.allocation.phases import phase_of
from coordinator.core.allocation.policy import Budget, Phase, Policy
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.utility import utilities

SMALLEST_LABEL_MASS = 0.05
"""Least utility that a label of the past counts as, so that counts matter among dull candidates."""


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Phase, cost of each row and the limits of the whole cycle.

    Attributes:
        pool: the open candidates.
        budget: what the cycle may cost.
        policy: how to spend it.
        key: the chance key.
        phase: phase of the policy.
        costs: int64[n], cost units of each row.
        limits: all that may be spent.
    """

    pool: Pool
    budget: Budget
    policy: Policy
    key: NDArray[np.uint64]
    phase: Phase
    costs: NDArray[np.int64]
    limits: Limits

    @property
    def overlap_cost(self) -> int:
        """Cost units kept back for second labels."""
        return int(self.policy.overlap_ratio * self.limits.cost_limit)


def make_setting(pool: Pool, budget: Budget, policy: Policy, key: NDArray[np.uint64]) -> Setting:
    """Works out the setting of one allocation."""
    return Setting(
        pool=pool,
        budget=budget,
        policy=policy,
        key=key,
        phase=phase_of(pool.progress, class_count=pool.class_count, policy=policy),
        costs=row_costs(pool, budget),
        limits=Limits(
            budget.site_capacity.astype(np.int64),
            site_cost_caps(pool, budget, policy),
            budget.cost_limit,
        ),
    )


def explore(setting: Setting) -> ExploreDraw:
    """Draws the explore share so that even its dearest outcome stays within every limit."""
    pool, limits, costs = setting.pool, setting.limits, setting.costs
    policy = setting.policy
    ratio = policy.explore_ratio if policy.switches.explore else 0.0
    if not len(pool) or not ratio:
        return draw_explore(pool, label_target=0.0, site_limits=limits.site_labels, key=setting.key)
    dearest = np.zeros(pool.site_count, dtype=np.int64)
    np.maximum.at(dearest, pool.site_index, costs)
    affordable = np.minimum(limits.site_labels, limits.site_costs // np.maximum(dearest, 1))
    mean_cost = int(costs.sum()) / len(costs)
    target = min(ratio * limits.cost_limit / mean_cost, limits.cost_limit // int(dearest.max()))
    return draw_explore(
        pool, label_target=float(int(target)), site_limits=affordable, key=setting.key
    )


def open_offer(setting: Setting, drawn: NDArray[np.int64]) -> Offer:
    """All rows that the explore draw left, and what it and the overlap leave of the limits."""
    pool, policy = setting.pool, setting.policy
    floors = missing_labels(pool, setting.budget, policy)
    left = setting.limits.less(pool.site_index[drawn], setting.costs[drawn])
    whole = Offer(
        rows=np.arange(len(pool)),
        utilities=utilities(pool, policy, setting.phase),
        ties=keyed_numbers(pool.candidate_ids, setting.key, purpose="tie"),
        costs=setting.costs,
        classes=floor_classes(pool, policy, floors),
        limits=replace(left, cost_limit=max(0, left.cost_limit - setting.overlap_cost)),
        floors=floors,
    )
    if not len(drawn):
        return whole
    keep = np.ones(len(pool), dtype=np.bool_)
    keep[drawn] = False
    return whole.part(np.flatnonzero(keep))


def label_mass(offer: Offer) -> float:
    """Utility that a label of the past counts as: that of the last candidate one could afford."""
    count = offer.most_picks
    if not count:
        return SMALLEST_LABEL_MASS
    place = len(offer.utilities) - count
    return max(SMALLEST_LABEL_MASS, float(np.partition(offer.utilities, place)[place]))


def draw_overlap(setting: Setting, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Picked rows, by chance, that a second expert shall label too."""
    if not setting.overlap_cost:
        return np.zeros(0, dtype=np.int64)
    pool, costs = setting.pool, setting.costs
    left = setting.limits.less(pool.site_index[rows], costs[rows])
    labels, money = left.site_labels.copy(), left.site_costs.copy()
    purse = min(setting.overlap_cost, left.cost_limit)
    numbers = keyed_numbers(pool.candidate_ids[rows], setting.key, purpose="overlap")
    twice: list[int] = []
    for row in rows[np.argsort(numbers)].tolist():
        site, cost = int(pool.site_index[row]), int(costs[row])
        if labels[site] > 0 and money[site] >= cost and purse >= cost:
            labels[site] -= 1
            money[site] -= cost
            purse -= cost
            twice.append(row)
    return np.asarray(twice, dtype=np.int64)
