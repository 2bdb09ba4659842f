"""Choosing the useful rows: shortlist, engine, prices, and a look back at what was left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.crowd import Crowd
from coordinator.core.allocation.fill import guided_fill
from coordinator.core.allocation.keys import build_problem
from coordinator.core.allocation.lazy import lazy_greedy
from coordinator.core.allocation.levels import rows_of_levels
from coordinator.core.allocation.market import Market
from coordinator.core.allocation.objective import Integers, Problem, Reals
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.partition import optimal_rows
from coordinator.core.allocation.policy import Engine, Policy
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.prices import LinearProblem, Multipliers
from coordinator.core.allocation.smoothed import DITHER, solve_relaxed
from coordinator.core.allocation.terms import Objective, build_terms, term_masses
from coordinator.core.allocation.threshold import descending_threshold

MOST_LAZY_PICKS = 400
"""Up to so many picks the exact engine is quick enough to be the default."""
ONE_PARTITION = "one partition"
"""Name of the engine whose choice is optimal."""
MANY_PICKS = 5000
"""From so many picks on the threshold engine takes the policy's full step."""
LOOK_BACKS = 3
"""How often the shortlist is extended by rows that turn out to be worth a look."""

CROWD_STEP = 2 / 3
"""Share of the policy's step where one row stands for many: there are few keys to look at."""
QUICK_STEP = 0.3
"""Relative step of the first look, which only says what to add to the shortlist."""
ROWS_OF_A_KEY = 8
"""Rows of one key and utility that are added at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Rows bought for their use, best first.

    Attributes:
        rows: int64[k], rows of the pool.
        floor_rows: bool[k], bought because a class floor asked for them.
        engine: name of the engine.
        unmet: int64[classes], floor labels that did not fit.
        prices: what the limits are worth, or None where no price was needed.
    """

    rows: Integers
    floor_rows: NDArray[np.bool_]
    engine: str
    unmet: Integers
    prices: Multipliers | None


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What a row must pass to be added to the shortlist.

    Attributes:
        bars: float64[sites], least gain per cost unit.
        kind_bars: float64[sites], the same for rows of a crowd. Most kinds of a crowd gain the
            same, so those within the engine's step to both sides are noise.
        most: rows of one key and utility to add.
    """

    bars: Reals
    kind_bars: Reals
    most: int


def choose(market: Market) -> tuple[Choice, Objective]:
    """Buys the rows that together are worth most within all limits.

    Returns:
        The choice, and the objective that it maximises.
    """
    pool, policy = market.pool, market.policy
    budget = market.setting.budget
    objective = build_terms(pool, budget, policy, label_mass=market.label_mass)
    if not market.most_picks:
        empty = np.zeros(0, dtype=np.int64)
        return Choice(empty, empty.astype(np.bool_), "none", market.floors, None), objective
    rows = rows_of_levels(market, objective) if policy.engine is Engine.AUTO else None
    if rows is not None:
        return _optimal(market, rows), objective
    crowd = market.crowd(objective[1])
    offer = market.offer(market.shortlist(objective[1], crowd))
    if policy.engine is Engine.AUTO:
        rows = optimal_rows(market, objective, offer)
        if rows is not None:
            return _optimal(market, rows), objective
    if len(offer.rows) + len(market.drawn) < len(pool):
        offer = _widened(market, offer, objective, crowd)
    if crowd is not None and offer.most_picks >= MANY_PICKS:
        policy = replace(policy, epsilon=policy.epsilon * CROWD_STEP)
    most = ROWS_OF_A_KEY
    for _ in range(LOOK_BACKS):
        choice, bars = _choose_from(pool, offer, objective, policy)
        most *= 4
        # What lies within the engine's own step of the bar is not worth another look.
        look = _Look(bars * (1.0 + policy.epsilon), bars / (1.0 - policy.epsilon) ** 2, most)
        more = _beside(market, offer, (objective, crowd), choice.rows, look)
        if not len(more):
            break
        offer = market.offer(np.union1d(offer.rows, more))
    return choice, objective


def _optimal(market: Market, rows: Integers) -> Choice:
    """Rows that are optimal; then no floor and no price matters."""
    none = np.zeros(len(rows), dtype=np.bool_)
    return Choice(rows, none, ONE_PARTITION, market.floors, None)


def _widened(market: Market, offer: Offer, objective: Objective, crowd: Crowd | None) -> Offer:
    """The shortlist, and what a quick look says is worth buying beside it."""
    problem = build_problem(
        market.pool,
        offer,
        objective=objective,
        per_cost=market.policy.switches.costs,
    )
    rows = problem.rows[descending_threshold(problem, offer.limits, epsilon=QUICK_STEP)]
    none = np.zeros(len(rows), dtype=np.bool_)
    quick = Choice(rows, none, "threshold", offer.floors, None)
    bars = _bars(market.pool, offer, objective, quick)
    look = _Look(bars, bars / (1.0 - QUICK_STEP) ** 2, ROWS_OF_A_KEY)
    more = _beside(market, offer, (objective, crowd), rows, look)
    return market.offer(np.union1d(offer.rows, more)) if len(more) else offer


def _beside(
    market: Market,
    offer: Offer,
    worth: tuple[Objective, Crowd | None],
    rows: Integers,
    look: _Look,
) -> Integers:
    """Rows outside the offer that could pass their site's bar beside the chosen rows.

    Args:
        market: all rows.
        offer: rows that an engine saw.
        worth: the objective, and the crowd if there is one.
        rows: rows that the engine chose.
        look: what a row must pass.
    """
    objective, crowd = worth
    bought = offer.utilities[np.searchsorted(offer.rows, rows)].astype(np.float64)
    masses = term_masses(objective[1], rows, bought)
    missed = market.missed(offer.rows, objective, masses, look.bars, crowd)
    spare = np.setdiff1d(offer.rows, rows, assume_unique=True)
    missed = market.undominated(missed, spare, objective[1])
    if len(missed):
        missed = market.thinned(missed, objective[1], look.most)
    if crowd is None:
        return missed
    passing = masses, look.kind_bars
    more = market.of_kinds(crowd, (offer.rows, rows), objective, passing, look.most)
    return np.concatenate([missed, more])


def _choose_from(
    pool: Pool, offer: Offer, objective: Objective, policy: Policy
) -> tuple[Choice, NDArray[np.float64]]:
    """A choice among the shortlist, and per site the gain per cost unit that was still bought."""
    problem = build_problem(
        pool,
        offer,
        objective=objective,
        per_cost=policy.switches.costs,
        worthless=bool(offer.floors.any()),
    )
    items, engine = _run_engine(problem, offer, policy)
    choice = Choice(
        rows=problem.rows[items],
        floor_rows=np.zeros(len(items), dtype=np.bool_),
        engine=engine,
        unmet=offer.floors.copy(),
        prices=None,
    )
    priced = policy.switches.costs and _limits_bind(problem, items, offer)
    if offer.floors.any() or priced:
        choice = _with_prices(problem, offer, items, policy, engine)
    return choice, _bars(pool, offer, objective, choice)


def _run_engine(problem: Problem, offer: Offer, policy: Policy) -> tuple[Integers, str]:
    """Runs the asked engine; both keep every limit."""
    lazy = policy.engine is Engine.LAZY or (
        policy.engine is Engine.AUTO and offer.most_picks <= MOST_LAZY_PICKS
    )
    if not lazy:
        # Few picks can afford a finer step, and need it: each one weighs more.
        step = policy.epsilon if offer.most_picks >= MANY_PICKS else policy.epsilon / 3
        return descending_threshold(problem, offer.limits, epsilon=step), "threshold"
    by_cost = lazy_greedy(problem, offer.limits)
    if len(np.unique(problem.divisors)) < 2:
        return by_cost, "lazy"
    plain = lazy_greedy(replace(problem, divisors=np.ones(problem.key_count)), offer.limits)
    best = max((by_cost, plain), key=problem.value)
    return best, "lazy"


def _limits_bind(problem: Problem, items: Integers, offer: Offer) -> bool:
    """Whether costs differ or a site's cap is reached, so that prices can do better."""
    if len(np.unique(problem.costs)) > 1:
        return True
    keys = np.searchsorted(problem.starts, items, side="right") - 1
    sites, costs = problem.sites[keys], problem.costs[keys]
    count = len(offer.limits.site_labels)
    labels = np.bincount(sites, minlength=count)
    money = np.bincount(sites, weights=costs, minlength=count)
    full = (labels >= offer.limits.site_labels) | (money >= offer.limits.site_costs)
    return bool(full[problem.sites].any())


def _with_prices(
    problem: Problem, offer: Offer, items: Integers, policy: Policy, engine: str
) -> Choice:
    """Prices the limits at the engine's choice, and keeps the better of three ways to spend."""
    place = np.searchsorted(offer.rows, problem.rows)
    keys = problem.item_keys()
    linear = LinearProblem(
        worth=problem.utilities * problem.slopes(problem.masses(items), keys),
        costs=problem.costs[keys],
        sites=problem.sites[keys],
        classes=offer.classes[place],
        limits=offer.limits,
        floors=offer.floors,
    )
    relaxed = solve_relaxed(linear, dither=DITHER)
    filled, _ = guided_fill(linear, relaxed)
    floors = _floor_items(linear, filled)
    options = [filled]
    if not offer.floors.any():
        options.append(items)
    elif problem.families:
        options.append(_after_floors(problem, offer, floors, policy))
    best = max(options, key=problem.value)
    bought = np.bincount(linear.classes[best], minlength=len(offer.floors))
    return Choice(
        rows=problem.rows[best],
        floor_rows=np.isin(best, floors),
        engine=f"{engine} with prices",
        unmet=np.maximum(offer.floors - bought, 0),
        prices=relaxed.prices.noticeable(DITHER * float(linear.worth.max(initial=0.0))),
    )


def _floor_items(linear: LinearProblem, filled: Integers) -> Integers:
    """The first items of each class with a floor, as many as the floor asks for."""
    wanted = linear.floors[linear.classes[filled]] > 0
    items = filled[wanted]
    classes = linear.classes[items]
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], np.arange(len(linear.floors)))
    rank = np.empty(len(items), dtype=np.int64)
    rank[order] = np.arange(len(items)) - starts[classes[order]]
    return np.asarray(items[rank < linear.floors[classes]], dtype=np.int64)


def _after_floors(problem: Problem, offer: Offer, floors: Integers, policy: Policy) -> Integers:
    """Floor items first, then the engine on what is left of the budget."""
    keys = problem.item_keys()
    taken = np.zeros(len(keys), dtype=np.bool_)
    taken[floors] = True
    rest = np.flatnonzero(~taken)
    counts = np.bincount(keys[rest], minlength=problem.key_count)
    kept = counts > 0
    masses = problem.masses(floors)
    families = tuple(
        replace(family, groups=family.groups[kept], base=family.base + mass)
        for family, mass in zip(problem.families, masses, strict=True)
    )
    smaller = Problem(
        utilities=problem.utilities[rest],
        ties=problem.ties[rest],
        starts=np.concatenate([[0], np.cumsum(counts[kept])]),
        costs=problem.costs[kept],
        divisors=problem.divisors[kept],
        sites=problem.sites[kept],
        linear=problem.linear,
        families=families,
        rows=problem.rows[rest],
    )
    sites, costs = problem.sites[keys[floors]], problem.costs[keys[floors]]
    left = offer.limits.less(sites.astype(np.int32), costs)
    more = descending_threshold(smaller, left, epsilon=policy.epsilon)
    return np.concatenate([floors, rest[more]])


def _bars(pool: Pool, offer: Offer, objective: Objective, choice: Choice) -> Reals:
    """Per site, the least worth per cost unit among what was bought; 0 while money is left."""
    place = np.searchsorted(offer.rows, choice.rows)
    costs = offer.costs[place]
    if offer.limits.cost_limit - int(costs.sum()) >= int(offer.costs.min(initial=1)):
        return np.zeros(pool.site_count)
    added = offer.utilities[place].astype(np.float64)
    masses = term_masses(objective[1], choice.rows, added)
    slopes = slopes_at(objective, masses, choice.rows)
    worth = np.where(choice.floor_rows, np.inf, added * slopes / costs)
    sites = pool.site_index[choice.rows]
    full = offer.limits.less(sites, costs).site_labels <= 0
    full |= offer.limits.less(sites, costs).site_costs <= 0
    bars = np.full(pool.site_count, np.inf)
    np.minimum.at(bars, sites, worth)
    lowest = float(worth.min(initial=np.inf))
    return np.where(full, bars, lowest)


def slopes_at(objective: Objective, masses: list[Reals], rows: Integers) -> Reals:
    """float64[len(rows)]: gain per unit of utility of some rows at the given masses."""
    linear, terms = objective
    total = np.full(len(rows), linear)
    for term, mass in zip(terms, masses, strict=True):
        total += (term.family.factor * term.family.slope(mass))[term.groups(rows)]
    return total
