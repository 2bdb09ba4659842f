"""The seam: ``allocate(pool, budget, policy, rng)`` decides, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.bound import CLOSE_ENOUGH, upper_bound
from coordinator.core.allocation.chance import draw_key
from coordinator.core.allocation.choose import ONE_PARTITION, Choice, choose, slopes_at
from coordinator.core.allocation.explore import ExploreDraw
from coordinator.core.allocation.kind_bound import bound_of_kinds, market_kinds
from coordinator.core.allocation.market import Market
from coordinator.core.allocation.phases import adapted
from coordinator.core.allocation.policy import (
    Budget,
    Policy,
    Reason,
    check_budget,
    check_policy,
)
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.result import Allocation, Certificate, Prices, Shortfall
from coordinator.core.allocation.setting import (
    Setting,
    draw_overlap,
    explore,
    make_setting,
)
from coordinator.core.allocation.terms import Objective, build_terms, term_masses
from coordinator.core.allocation.utility import utilities

METHOD = 2
"""Number of the way in which inputs become picks; logs from before it was written count as 0.

It rises with every change after which equal inputs may give other picks, a new default of the
policy included. An allocation of another method is not made again when a ledger is verified.
"""


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
        AllocationError: budget or policy is malformed; a pool was checked when it was made.
    """
    check_budget(budget, sites=pool.site_count, classes=pool.class_count)
    check_policy(policy)
    policy = adapted(policy, pool.progress)
    setting = make_setting(pool, budget, policy, draw_key(rng))
    draw = explore(setting)
    choice, objective = choose(_market(setting, draw.rows))
    return _assemble(setting, draw=draw, choice=choice, objective=objective)


def certify(pool: Pool, budget: Budget, policy: Policy, allocation: Allocation) -> Certificate:
    """How close the useful picks of an allocation come to the best possible ones.

    It costs several passes over the pool, so it is apart from the allocation and may run after
    the picks are published. Explore picks are left out on both sides.

    Args:
        pool: inputs of the allocation, unchanged.
        budget: likewise.
        policy: likewise.
        allocation: what :func:`allocate` returned for them.
    """
    policy = adapted(policy, pool.progress)
    setting = make_setting(pool, budget, policy, allocation.key)
    market = _market(setting, allocation.rows[allocation.reasons == Reason.EXPLORE])
    linear, terms = build_terms(pool, budget, policy, label_mass=market.label_mass)
    useful = np.isin(allocation.reasons, (Reason.USEFUL, Reason.CLASS_FLOOR))
    rows = allocation.rows[useful]
    added = utilities(setting, rows).astype(np.float64)
    masses = term_masses(terms, rows, added)
    value = linear * float(added.sum()) + sum(
        float(term.family.value(mass).sum()) for term, mass in zip(terms, masses, strict=True)
    )
    if allocation.engine == ONE_PARTITION:
        return Certificate(value=value, bound=value)  # exact by construction, see partition.py
    kinds = market_kinds(market, (linear, terms))
    if kinds is None:
        offer = market.whole()
        bound = upper_bound(pool, offer, objective=(linear, terms), start=masses, value=value)
    else:
        bound = bound_of_kinds(kinds, masses, enough=value / CLOSE_ENOUGH)
    return Certificate(value=value, bound=max(bound, value))


def _market(setting: Setting, drawn: NDArray[np.int64]) -> Market:
    """All rows that the explore draw left, and what it and the overlap leave of the limits."""
    left = setting.less(drawn)
    kept = max(0, left.cost_limit - setting.overlap_cost)
    return Market(setting, np.sort(drawn), replace(left, cost_limit=kept))


def _assemble(
    setting: Setting, *, draw: ExploreDraw, choice: Choice, objective: Objective
) -> Allocation:
    """Puts useful, explored and doubled picks into one list, with their reasons."""
    pool = setting.pool
    picked = np.concatenate([choice.rows, draw.rows])
    twice = draw_overlap(setting, picked)
    rows = np.concatenate([picked, twice])
    useful = np.where(choice.floor_rows, int(Reason.CLASS_FLOOR), int(Reason.USEFUL))
    counts = [len(draw.rows), len(twice)]
    chance = np.repeat([int(Reason.EXPLORE), int(Reason.OVERLAP)], counts)
    probability = np.zeros(len(rows))
    probability[len(choice.rows) : len(picked)] = draw.inclusion_probabilities
    gains = np.zeros(len(rows))
    gains[: len(choice.rows)] = _gains(setting, objective, choice.rows)
    return Allocation(
        rows=rows,
        candidate_ids=pool.candidate_ids[rows],
        site_index=pool.site_index[rows],
        reasons=np.concatenate([useful, chance]).astype(np.uint8),
        inclusion_probabilities=probability,
        costs=setting.costs_of(rows),
        gains=gains,
        phase=setting.phase,
        engine=choice.engine,
        key=setting.key,
        frame=draw.frame,
        shortfalls=_shortfalls(setting, choice, offered=len(pool), spent=rows),
        prices=_named_prices(pool, choice),
    )


def _gains(setting: Setting, objective: Objective, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Worth of each useful pick beside all others."""
    added = utilities(setting, rows).astype(np.float64)
    masses = term_masses(objective[1], rows, added)
    return added * slopes_at(objective, masses, rows)


def _named_prices(pool: Pool, choice: Choice) -> Prices | None:
    if choice.prices is None:
        return None
    found = choice.prices
    sites = np.flatnonzero((found.labels > 0) | (found.money > 0)).tolist()
    return Prices(
        budget=found.budget,
        sites={pool.site_ids[s]: float(found.labels[s] + found.money[s]) for s in sites},
        classes={c: float(found.floors[c]) for c in np.flatnonzero(found.floors > 0).tolist()},
    )


def _shortfalls(
    setting: Setting, choice: Choice, *, offered: int, spent: NDArray[np.int64]
) -> tuple[Shortfall, ...]:
    """Which class floors and which part of the budget stay open, and why."""
    found = []
    for group in np.flatnonzero(choice.unmet).tolist():
        wanted = int(setting.budget.class_floors[group] - setting.pool.progress.class_labels[group])
        missing = int(choice.unmet[group])
        why = "too few candidates of this class fit the budget and the sites' limits"
        found.append(Shortfall(f"class {group}", wanted, wanted - missing, why))
    cost, budget = int(setting.costs_of(spent).sum()), setting.budget
    rest, bands = budget.cost_limit - cost, setting.pool.cost_bands
    cheapest = min(budget.band_costs)  # saves a look at ten million bands where nothing is left
    if rest >= cheapest and rest >= (budget.band_costs[int(bands.min())] if len(bands) else 1):
        why = "the pool is used up" if len(spent) >= offered else "the sites' limits are reached"
        found.append(Shortfall("budget", setting.budget.cost_limit, cost, why))
    return tuple(found)
