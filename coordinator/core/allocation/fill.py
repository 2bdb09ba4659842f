"""Choosing rows under all limits at once, guided by prices; then mending what floors still lack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.prices import Integers, LinearProblem, Multipliers, Reals
from coordinator.core.allocation.smoothed import Relaxed


def guided_fill(problem: LinearProblem, relaxed: Relaxed) -> tuple[Integers, Integers]:
    """A choice within all limits: floors first, then the largest shares, then the best ratios.

    Among rows with equal shares, those of the best worth after prices per cost unit go first.

    Returns:
        Chosen rows, best first, and int64[classes] of floor labels that did not fit.
    """
    prices = relaxed.prices
    ratio = prices.reduced(problem) / problem.costs
    # Whole ten-thousandths, so that the last digits of a sum decide nothing.
    order = np.lexsort((-ratio, -np.rint(relaxed.shares * 1e4))).astype(np.int64)
    useful = order[problem.worth[order] > 0]
    basket = _Basket(problem)
    _reserve(problem, prices, order, basket)
    _fill(useful, basket)
    _mend(problem, prices, order, basket)
    _fill(useful, basket)  # mending may free cost units that did not fit before
    chosen = np.flatnonzero(basket.chosen)
    chosen = chosen[np.argsort(-ratio[chosen], kind="stable")]
    return chosen, np.maximum(problem.floors - basket.bought, 0)


def _fill(order: Integers, basket: _Basket) -> None:
    """Adds rows in the given order while they fit."""
    for row in order.tolist():
        if basket.left <= 0:
            break
        basket.add(row)


class _Basket:
    """Chosen rows and what they leave of each limit."""

    def __init__(self, problem: LinearProblem) -> None:
        self.chosen = np.zeros(len(problem.worth), dtype=np.bool_)
        self.bought = np.zeros(len(problem.floors), dtype=np.int64)
        self.labels = problem.limits.site_labels.tolist()
        self.money = problem.limits.site_costs.tolist()
        self.left = problem.limits.cost_limit
        self._sites = problem.sites.tolist()
        self._costs = problem.costs.tolist()
        self._classes = problem.classes.tolist()

    def fits(self, row: int) -> bool:
        """Whether the row may be added as things stand."""
        site, cost = self._sites[row], self._costs[row]
        return bool(self.labels[site] > 0 and self.money[site] >= cost and self.left >= cost)

    def add(self, row: int) -> bool:
        """Adds a row that fits and is not there yet."""
        if self.chosen[row] or not self.fits(row):
            return False
        self._move(row, 1)
        return True

    def drop(self, row: int) -> None:
        """Takes a row out again."""
        self._move(row, -1)

    def _move(self, row: int, sign: int) -> None:
        site, cost = self._sites[row], self._costs[row]
        self.chosen[row] = sign > 0
        self.labels[site] -= sign
        self.money[site] -= sign * cost
        self.left -= sign * cost
        self.bought[self._classes[row]] += sign


def _reserve(problem: LinearProblem, prices: Multipliers, order: Integers, basket: _Basket) -> None:
    """Buys the floors whose price says that they bind; the others fill up by themselves."""
    classes = np.flatnonzero((problem.floors > 0) & (prices.floors > 0))
    for group in classes[np.argsort(-prices.floors[classes], kind="stable")].tolist():
        for row in order[problem.classes[order] == group].tolist():
            if basket.bought[group] >= problem.floors[group]:
                break
            basket.add(row)


def _mend(problem: LinearProblem, prices: Multipliers, order: Integers, basket: _Basket) -> None:
    """Swaps the least worthy rows of classes above their floor for rows of classes below it."""
    for group in np.flatnonzero(basket.bought < problem.floors).tolist():
        for row in order[problem.classes[order] == group].tolist():
            if basket.bought[group] >= problem.floors[group]:
                break
            if basket.chosen[row] or basket.add(row):
                continue
            _swap_in(problem, prices, basket, row)


def _swap_in(problem: LinearProblem, prices: Multipliers, basket: _Basket, row: int) -> None:
    """Makes room for one row, or leaves everything as it was."""
    site = int(problem.sites[row])
    dropped: list[int] = []
    worth = problem.worth / problem.costs - prices.budget
    while not basket.fits(row):
        same_site = basket.labels[site] <= 0 or basket.money[site] < problem.costs[row]
        spare = _spare(problem, basket, site if same_site else None)
        if not len(spare) or len(dropped) >= 8:
            for back in dropped:
                basket.add(back)
            return
        least = int(spare[np.argmin(worth[spare])])
        basket.drop(least)
        dropped.append(least)
    basket.add(row)


def _spare(problem: LinearProblem, basket: _Basket, site: int | None) -> NDArray[np.int64]:
    """Chosen rows that no floor needs, at one site or anywhere."""
    above: Reals | NDArray[np.bool_] = basket.bought > problem.floors
    keep = basket.chosen & above[problem.classes].astype(np.bool_)
    if site is not None:
        keep &= problem.sites == site
    return np.flatnonzero(keep)
