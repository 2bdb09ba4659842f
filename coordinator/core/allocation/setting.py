"""What follows from pool, budget and policy before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import keyed_numbers
from coordinator.core.allocation.explore import ExploreDraw, draw_explore, empty_draw
from coordinator.core.allocation.limits import Limits, site_cost_caps
from coordinator.core.allocation.phases import phase_of
from coordinator.core.allocation.policy import Budget, Phase, Policy
from coordinator.core.allocation.pool import Pool


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Inputs, phase and the limits of the whole cycle.

    Attributes:
        pool: the open candidates.
        budget: what the cycle may cost.
        policy: how to spend it.
        key: the chance key.
        phase: phase of the policy.
        limits: all that may be spent.
    """

    pool: Pool
    budget: Budget
    policy: Policy
    key: NDArray[np.uint64]
    phase: Phase
    limits: Limits

    @property
    def overlap_cost(self) -> int:
        """Cost units kept back for second labels."""
        return int(self.policy.overlap_ratio * self.limits.cost_limit)

    def costs_of(self, rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """int64[len(rows)], cost units of some rows."""
        table = np.asarray(self.budget.band_costs, dtype=np.int64)
        return np.asarray(table[self.pool.cost_bands[rows]], dtype=np.int64)

    def less(self, rows: NDArray[np.int64]) -> Limits:
        """The limits after buying some rows."""
        return self.limits.less(self.pool.site_index[rows], self.costs_of(rows))


def make_setting(pool: Pool, budget: Budget, policy: Policy, key: NDArray[np.uint64]) -> Setting:
    """Works out the setting of one allocation."""
    return Setting(
        pool=pool,
        budget=budget,
        policy=policy,
        key=key,
        phase=phase_of(pool.progress, policy),
        limits=Limits(
            budget.site_capacity.astype(np.int64),
            site_cost_caps(pool, budget, policy),
            budget.cost_limit,
        ),
    )


def explore(setting: Setting) -> ExploreDraw:
    """Draws the explore share so that even its dearest outcome stays within every limit."""
    pool, limits = setting.pool, setting.limits
    ratio = setting.policy.explore_ratio if setting.policy.switches.explore else 0.0
    if not len(pool) or not ratio:
        return empty_draw(pool)
    pairs = pool.site_index.astype(np.int64) * 8 + pool.cost_bands
    counts = np.bincount(pairs, minlength=8 * pool.site_count).reshape(-1, 8)
    costs = np.asarray(setting.budget.band_costs, dtype=np.int64)
    dearest = np.where(counts > 0, costs, 0).max(axis=1)
    affordable = np.minimum(limits.site_labels, limits.site_costs // np.maximum(dearest, 1))
    mean_cost = int((counts * costs).sum()) / len(pool)
    target = min(ratio * limits.cost_limit / mean_cost, limits.cost_limit // int(dearest.max()))
    return draw_explore(
        pool,
        label_target=float(int(target)),
        site_limits=affordable,
        key=setting.key,
        doubt_share=setting.policy.explore_doubt if setting.policy.switches.doubt else 0.0,
    )


def draw_overlap(setting: Setting, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Picked rows, by chance, that a second expert shall label too."""
    if not setting.overlap_cost:
        return np.zeros(0, dtype=np.int64)
    pool, left = setting.pool, setting.less(rows)
    labels, money = left.site_labels.copy(), left.site_costs.copy()
    purse = min(setting.overlap_cost, left.cost_limit)
    numbers = keyed_numbers(pool.candidate_ids[rows], setting.key, purpose="overlap")
    twice: list[int] = []
    order = rows[np.argsort(numbers)]
    for row, cost in zip(order.tolist(), setting.costs_of(order).tolist(), strict=True):
        site = int(pool.site_index[row])
        if labels[site] > 0 and money[site] >= cost and purse >= cost:
            labels[site] -= 1
            money[site] -= cost
            purse -= cost
            twice.append(row)
    return np.asarray(twice, dtype=np.int64)
