"""One partition whose utility is one score: rows of one group and level are alike.

So counts of the rows of the best levels say what the last increment bought is worth, without
ranking a row. Only groups that have no more row on these levels can reach it with a row of a lower
level. What remains is a few rows per pick, and these are ranked as in ``partition.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.keys import dense_codes
from coordinator.core.allocation.market import Market
from coordinator.core.allocation.objective import Integers, Reals, group_sums
from coordinator.core.allocation.partition import Items, best_increments, row_gains, within_limits
from coordinator.core.allocation.prune import rows_where
from coordinator.core.allocation.terms import Objective, Term
from coordinator.core.allocation.thin import near_lowest

LEVELS = 256
_NEVER = LEVELS - 1
_SLACK = 1.0 - 1e-6
"""What rounding may make of an increment."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """Rows of the best levels, counted by group and level.

    Attributes:
        keys: int64[n], kind of each row.
        groups: int64[kinds], rising.
        worth: float64[kinds], utility of a row, falling inside a group.
        counts: int64[kinds].
    """

    keys: Integers
    groups: Integers
    worth: Reals
    counts: Integers


def rows_of_levels(market: Market, objective: Objective) -> Integers | None:
    """The optimum, best increment first, or None where this way does not serve.

    That is where more than one family or limit matters, where utility is more than one score, and
    where far more rows than can be bought share the last level.

    Args:
        market: all rows.
        objective: weight of the plain utility sum, and the concave terms.
    """
    if market.only_score is None or len(objective[1]) != 1 or not market.most_picks:
        return None
    if market.costs_differ or market.floors.any():
        return None
    column, top, term = market.only_score[0], market.picks_level, objective[1][0]
    best = market.best_rows
    if best is None:
        return None
    kinds = _kinds(market, term, best)
    quotas, need = _first_look(market, objective, kinds)
    ties = market.ties(best)
    near = near_lowest(kinds.keys, ties, quotas)
    rows, ties = best[near], ties[near]
    if need.min() < top:
        lower = rows_where(
            len(column),
            lambda part: column[part] >= np.take(need, term.groups(part)),
            most=market.most_rows,
        )
        if lower is None:
            return None
        lower = market.left(lower[np.take(column, lower) < top])
        rows = np.concatenate([rows, lower])
        ties = np.concatenate([ties, market.ties(lower)])
    items = Items(term.groups(rows).astype(np.int64), market.utilities_of(rows), ties)
    rows = rows[best_increments(items, objective, market.most_picks)[0]]
    return rows if within_limits(market, rows) else None


def _kinds(market: Market, term: Term, rows: Integers) -> _Kinds:
    """Counts rows by group and level, the best level of each group first."""
    assert market.only_score is not None
    column, table = market.only_score
    codes = term.groups(rows).astype(np.int64) * LEVELS + (_NEVER - np.take(column, rows))
    keys = dense_codes(codes)
    counts = np.bincount(keys)
    code: Integers = np.empty(len(counts), dtype=np.int64)
    code[keys] = codes
    worth = table[_NEVER - code % LEVELS].astype(np.float64)
    return _Kinds(keys, code // LEVELS, worth, counts)


def _first_look(
    market: Market, objective: Objective, kinds: _Kinds
) -> tuple[Integers, NDArray[np.uint8]]:
    """What the rows of the best levels alone would buy, and what else could be worth it.

    With more rows to choose from, the last increment bought only rises. So what lies below it now
    stays out.

    Returns:
        int64[kinds], rows of each kind whose increment reaches the last one bought;
        uint8[groups], the least level at which a row of the group could do so beside all of these
        rows, 255 for a group that has rows left among them.
    """
    assert market.only_score is not None
    (linear, (term,)), table = objective, market.only_score[1].astype(np.float64)
    family = term.family
    groups, added = np.repeat(kinds.groups, kinds.counts), np.repeat(kinds.worth, kinds.counts)
    gains = row_gains(family, groups, added, linear)
    place = len(gains) - market.most_picks
    bar = float(np.partition(gains, place)[place]) * _SLACK
    starts = np.cumsum(kinds.counts) - kinds.counts
    quotas = np.add.reduceat((gains >= bar).astype(np.int64), starts)
    width = len(family.weights)
    held = np.bincount(kinds.groups, weights=kinds.counts - quotas, minlength=width)
    mass = group_sums(kinds.groups, family.factor * kinds.worth * kinds.counts, count=width)
    slopes = linear + family.factor * family.slope(mass)
    levels = np.searchsorted(table, bar * _SLACK / np.maximum(slopes, 1e-300))
    need = np.where((held > 0) | (slopes <= 0), _NEVER, np.minimum(levels, _NEVER))
    return quotas, need.astype(np.uint8)
