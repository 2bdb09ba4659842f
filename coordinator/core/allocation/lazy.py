"""Exact greedy over heads with lazy look-ups: slow and right. The oracle of the other engine."""

from __future__ import annotations

import numpy as np

from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.objective import Integers, Problem

_FIRST_LOOK = 64


def lazy_greedy(problem: Problem, limits: Limits) -> Integers:
    """Items in the order in which the greedy picks them.

    At each step the item with the largest gain over its divisor that still fits is taken. Gains
    only fall, so a gain from an earlier step is an upper bound, and only the keys at the top are
    looked at again. Equal gains go by chance.

    Args:
        problem: items by key.
        limits: labels and cost units left.

    Source: Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
    """
    labels, money = limits.site_labels.copy(), limits.site_costs.copy()
    left = limits.cost_limit
    heads = _Heads(problem)
    picks: list[int] = []
    while left > 0:
        key = heads.best()
        if key is None:
            break
        site, cost = int(problem.sites[key]), int(problem.costs[key])
        if labels[site] <= 0 or money[site] < cost or left < cost:
            heads.retire(key)  # limits only shrink, so the whole key is out
            continue
        picks.append(heads.take(key))
        labels[site] -= 1
        money[site] -= cost
        left -= cost
    return np.asarray(picks, dtype=np.int64)


class _Heads:
    """The best open item of each key, and an upper bound of its gain."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._masses = problem.empty_masses()
        self._cursor = problem.starts[:-1].copy()
        self._stale = np.full(problem.key_count, np.inf)

    def best(self) -> int | None:
        """Key of the largest gain, or None when nothing is left."""
        look, fresh = _FIRST_LOOK, np.zeros(len(self._stale), dtype=np.bool_)
        while True:
            top = self._top(look)
            old = top[~fresh[top]]
            if len(old):
                utilities = self._problem.utilities[self._cursor[old]]
                gains = self._problem.gains(self._masses, old, utilities)
                self._stale[old] = gains / self._problem.divisors[old]
                fresh[old] = True
            best = float(self._stale.max(initial=0.0))
            if best <= 0.0:
                return None
            equal = np.flatnonzero(self._stale == best)
            if fresh[equal].all():
                ties = self._problem.ties[self._cursor[equal]]
                return int(equal[np.argmin(ties)])
            look *= 2

    def take(self, key: int) -> int:
        """Takes the head of a key and returns its item."""
        item = int(self._cursor[key])
        added = float(self._problem.utilities[item])
        for family, mass in zip(self._problem.families, self._masses, strict=True):
            mass[family.groups[key]] += family.factor * added
        self._cursor[key] += 1
        if self._cursor[key] == self._problem.starts[key + 1]:
            self.retire(key)
        return item

    def retire(self, key: int) -> None:
        """Takes a key out for good."""
        self._stale[key] = 0.0

    def _top(self, count: int) -> Integers:
        """The keys of the largest bounds that are not used up."""
        if count >= len(self._stale):
            return np.flatnonzero(self._stale > 0)
        place = len(self._stale) - count
        top = np.argpartition(self._stale, place)[place:]
        return np.asarray(top[self._stale[top] > 0], dtype=np.int64)
