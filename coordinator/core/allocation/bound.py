"""The certificate: an upper bound on the objective that any choice could reach.

A concave function lies below its tangents, so for any masses V

    F(S)  <=  F(V) - <slope(V), V> + sum of u_i * slope_i(V) over S,

and the last sum is at most a Lagrangian dual of the limits. Frank-Wolfe steps move V towards the
best tangent. Source: the tangent bound is the conditional-gradient duality gap, Jaggi,
"Revisiting Frank-Wolfe", 2013. :mod:`coordinator.core.allocation.prices` has the dual.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers, Reals
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.prices import LinearProblem, Multipliers, dual_value
from coordinator.core.allocation.smoothed import solve_relaxed
from coordinator.core.allocation.terms import Objective, Term, row_slopes, term_masses

MOST_STEPS = 60
"""Tangents tried at most. Where all scores are equal, the first ones lie far from each other."""
CLOSE_ENOUGH = 0.999
"""Share of the bound at which no further tangent is tried."""
_SUBSET = 20_000


def upper_bound(
    pool: Pool,
    offer: Offer,
    *,
    objective: Objective,
    start: list[Reals],
    value: float,
) -> float:
    """The smallest bound found by Frank-Wolfe steps from the masses ``start``.

    Args:
        pool: all open candidates.
        offer: those that may be bought, and the limits.
        objective: weight of the plain utility sum and the concave terms.
        start: masses to start from, best those of a good choice.
        value: objective of a good choice; a bound close to it ends the steps.
    """
    linear, terms = objective
    masses, best = [mass.copy() for mass in start], np.inf
    prices: Multipliers | None = None
    for step in range(MOST_STEPS if terms else 1):
        worth = offer.utilities * row_slopes(offer.rows, linear, terms, masses)
        total, chosen, prices = _best_choice(pool, offer, worth, prices)
        best = min(best, _tangent(terms, masses) + total)
        if value >= CLOSE_ENOUGH * best:
            break
        added = offer.utilities[chosen].astype(np.float64)
        target = term_masses(terms, offer.rows[chosen], added)
        size = 1.0 / (step + 4.0)
        masses = [(1 - size) * old + size * new for old, new in zip(masses, target, strict=True)]
    return float(best)


def _tangent(terms: tuple[Term, ...], masses: list[Reals]) -> float:
    """F(V) - <slope(V), V> of the concave terms."""
    return sum(
        float((term.family.value(mass) - term.family.slope(mass) * mass).sum())
        for term, mass in zip(terms, masses, strict=True)
    )


def _best_choice(
    pool: Pool, offer: Offer, worth: NDArray[np.float32], prices: Multipliers | None
) -> tuple[float, Integers, Multipliers | None]:
    """A bound on the best linear choice within the limits, a choice close to it, and prices."""
    limits, sites = offer.limits, pool.site_index[offer.rows]
    offered = np.bincount(sites, minlength=pool.site_count)
    if len(offer.rows) and not offer.floors.any() and (offer.costs == offer.costs[0]).all():
        cost = int(offer.costs[0])
        most = np.minimum(limits.site_labels, limits.site_costs // cost)
        if (np.minimum(offered, limits.cost_limit // cost) <= most).all():
            return (*_top(worth, limits.cost_limit // cost), None)
    problem = LinearProblem(
        worth=worth.astype(np.float64),
        costs=offer.costs,
        sites=sites.astype(np.int64),
        classes=offer.classes,
        limits=limits,
        floors=offer.floors,
    )
    return bound_linear(problem, start=prices)


def bound_linear(
    problem: LinearProblem, *, start: Multipliers | None = None
) -> tuple[float, Integers, Multipliers]:
    """A bound over all rows, the rows that its prices pay for, and the prices.

    Prices are found on the rows of greatest worth per cost unit, the bound holds for all rows.

    Args:
        problem: rows and limits.
        start: prices of a similar problem.
    """
    rows = problem.fitting()
    problem = problem.part(rows)
    known: Integers = np.arange(len(rows))
    picks = problem.limits.cost_limit // int(problem.costs.min(initial=2**31))
    subset = max(_SUBSET, 5 * picks)
    if len(known) > subset:
        ratio = problem.worth / problem.costs
        best = np.argpartition(ratio, len(ratio) - subset)[len(ratio) - subset :]
        known = np.sort(best).astype(np.int64)
    prices = solve_relaxed(problem.part(known), start=start).prices
    gain = prices.reduced(problem) - prices.budget * problem.costs
    return dual_value(problem, prices), rows[gain > 0], prices


def _top(worth: NDArray[np.float32], count: int) -> tuple[float, Integers]:
    if count >= len(worth):
        return float(worth.sum(dtype=np.float64)), np.arange(len(worth))
    chosen = np.argpartition(worth, len(worth) - count)[len(worth) - count :]
    return float(worth[chosen].sum(dtype=np.float64)), chosen
