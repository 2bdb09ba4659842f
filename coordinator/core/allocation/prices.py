"""Dual prices: what one more cost unit, one more label at a site, one floor label is worth.

The linear problem (worth per row; a cost budget; label and cost caps per site; floors per class)
has a Lagrangian dual with one price per limit. Its value bounds every choice from above, and
ranking rows by worth after prices guides a fill that keeps all limits.

Source: Fisher, "The Lagrangian relaxation method for solving integer programming problems", 1981;
subgradient steps with a target value after Polyak, 1969.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.limits import Limits

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
STEPS = 150
"""Subgradient steps from scratch; the bound is then within about two per mille of the best."""
_SUBSET = 20_000


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


def solve_prices(
    problem: LinearProblem, *, start: Multipliers | None = None, steps: int = STEPS
) -> Multipliers:
    """Prices with the smallest bound found in ``steps`` subgradient steps.

    Args:
        problem: rows and limits.
        start: prices of a similar problem; fewer and smaller steps are then enough.
        steps: how many.
    """
    limits = problem.limits
    sites, classes = len(limits.site_labels), len(problem.floors)
    prices = start or Multipliers(0.0, np.zeros(sites), np.zeros(sites), np.zeros(classes))
    best, best_value = _with_budget_price(problem, prices)[0], np.inf
    if not len(problem.worth):
        return best
    unit = (2.0 if start is None else 0.1) * float(problem.worth.max()) + 1e-12
    for step in range(steps):
        prices, chosen = _with_budget_price(problem, prices)
        value = dual_value(problem, prices)
        if value < best_value:
            best, best_value = prices, value
        prices = _moved(problem, prices, chosen, size=unit / np.sqrt(1.0 + step))
    return best


def _with_budget_price(problem: LinearProblem, prices: Multipliers) -> tuple[Multipliers, Integers]:
    """The best budget price beside the other prices, and the rows that it pays for."""
    reduced = prices.reduced(problem)
    ratio = reduced / problem.costs
    positive = np.flatnonzero(ratio > 0)
    order = positive[np.argsort(-ratio[positive], kind="stable")]
    spent = np.cumsum(problem.costs[order])
    count = int(np.searchsorted(spent, problem.limits.cost_limit, side="right"))
    price = float(ratio[order[count]]) if count < len(order) else 0.0
    return (
        Multipliers(price, prices.labels, prices.money, prices.floors),
        order[:count],
    )


def _moved(
    problem: LinearProblem, prices: Multipliers, chosen: Integers, *, size: float
) -> Multipliers:
    """Raises prices of limits that the choice passes, lowers those that it leaves slack."""
    limits = problem.limits
    sites, classes = problem.sites[chosen], problem.classes[chosen]
    count = len(limits.site_labels)
    labels = np.bincount(sites, minlength=count)
    money = np.bincount(sites, weights=problem.costs[chosen], minlength=count)
    bought = np.bincount(classes, minlength=len(problem.floors))
    mean_cost = float(problem.costs[chosen].mean()) if len(chosen) else 1.0
    return Multipliers(
        budget=prices.budget,
        labels=_stepped(prices.labels, labels, limits.site_labels, size),
        money=_stepped(prices.money, money, limits.site_costs, size / mean_cost),
        floors=_stepped(prices.floors, problem.floors, bought, size),
    )


def _stepped(
    prices: Reals, used: NDArray[np.number], limit: NDArray[np.integer], size: float
) -> Reals:
    """One relative subgradient step, kept at least 0."""
    excess = np.subtract(used, limit) / np.maximum(np.maximum(used, limit), 1)
    return np.asarray(np.maximum(prices + size * excess, 0.0), dtype=np.float64)


def bound_linear(
    problem: LinearProblem, *, start: Multipliers | None = None, steps: int = STEPS
) -> tuple[float, Integers, Multipliers]:
    """A bound over all rows, the rows that its prices pay for, and the prices.

    Prices are found on the rows of greatest worth per cost unit, the bound holds for all rows.
    """
    rows: Integers = np.arange(len(problem.worth))
    picks = problem.limits.cost_limit // int(problem.costs.min(initial=2**31))
    subset = max(_SUBSET, 5 * picks)
    if len(rows) > subset:
        ratio = problem.worth / problem.costs
        best = np.argpartition(ratio, len(ratio) - subset)[len(ratio) - subset :]
        rows = np.sort(best).astype(np.int64)
    prices = solve_prices(problem.part(rows), start=start, steps=steps)
    gain = prices.reduced(problem) - prices.budget * problem.costs
    return dual_value(problem, prices), np.flatnonzero(gain > 0), prices
