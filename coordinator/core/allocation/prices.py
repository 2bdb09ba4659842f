"""Dual prices: what one more cost unit, one more label at a site, one floor label is worth.

The linear problem (worth per row; a cost budget; label and cost caps per site; floors per class)
has a Lagrangian dual with one price per limit. Its value bounds every choice from above, whatever
the prices; :mod:`coordinator.core.allocation.smoothed` finds the best ones.

Source: Fisher, "The Lagrangian relaxation method for solving integer programming problems", 1981.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.limits import Limits

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LinearProblem:
    """Rows with a worth each, and the limits on choosing among them.

    Attributes:
        worth: float64[n], at least 0.
        costs: int64[n], at least 1.
        sites: int64[n].
        classes: int64[n], class whose floor a row helps to meet.
        limits: caps and budget.
        floors: int64[classes], labels that must still be bought.
    """

    worth: Reals
    costs: Integers
    sites: Integers
    classes: Integers
    limits: Limits
    floors: Integers

    def part(self, rows: Integers) -> LinearProblem:
        """The same limits over some rows."""
        return LinearProblem(
            worth=self.worth[rows],
            costs=self.costs[rows],
            sites=self.sites[rows],
            classes=self.classes[rows],
            limits=self.limits,
            floors=self.floors,
        )

    def fitting(self) -> Integers:
        """Rows that fit all limits as long as nothing else is bought."""
        limits = self.limits
        fits = (self.costs <= limits.cost_limit) & (limits.site_labels[self.sites] > 0)
        return np.flatnonzero(fits & (self.costs <= limits.site_costs[self.sites]))


@dataclass(frozen=True, slots=True, eq=False)
class Multipliers:
    """One price per limit, each at least 0, in units of worth.

    Attributes:
        budget: per cost unit.
        labels: float64[sites], per label at a site.
        money: float64[sites], per cost unit at a site.
        floors: float64[classes], paid on top for each label of a class with a floor.
    """

    budget: float
    labels: Reals
    money: Reals
    floors: Reals

    def noticeable(self, least: float) -> Multipliers:
        """The same without the site and class prices below ``least``: those limits do not bind."""
        labels, money, floors = (
            np.where(prices < least, 0.0, prices)
            for prices in (self.labels, self.money, self.floors)
        )
        return Multipliers(self.budget, labels, money, floors)

    def reduced(self, problem: LinearProblem) -> Reals:
        """float64[n]: worth after all prices but the budget's."""
        return (
            problem.worth
            - self.labels[problem.sites]
            - self.money[problem.sites] * problem.costs
            + self.floors[problem.classes]
        )


def dual_value(problem: LinearProblem, prices: Multipliers) -> float:
    """Upper bound on the worth of any choice within the limits.

    >>> limits = Limits(np.array([9]), np.array([9]), 1)
    >>> rows = np.zeros(2, dtype=np.int64)
    >>> tiny = LinearProblem(np.array([2.0, 1.0]), rows + 1, rows, rows, limits, np.array([0]))
    >>> dual_value(tiny, Multipliers(1.0, np.zeros(1), np.zeros(1), np.zeros(1)))
    2.0
    """
    gain = prices.reduced(problem) - prices.budget * problem.costs
    limits = problem.limits
    return float(
        np.maximum(gain, 0.0).sum()
        + prices.budget * limits.cost_limit
        + (prices.labels * limits.site_labels).sum()
        + (prices.money * limits.site_costs).sum()
        - (prices.floors * problem.floors).sum()
    )
